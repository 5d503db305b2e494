/* rule.c: the clauses of rule.h. */
#include <string.h>

#include "rule.h"
#include "x86/vectors.h"

/*
 * The smallest width of physical addresses that the cases may run on is 36 bits, the largest 51 (cases of
 * higher bits ask for it); bits between are reserved on some processors only and are rows of their own
 * (reserved.def).
 */
#define PHYSICAL_BITS_MAX 51u

static uint64_t bits(unsigned high, unsigned low) { return ((2ull << (high - low)) - 1) << low; }

/* Table 4-5 and on of SDM 3A 4.3 to 4.5; APM 2 5.2 and 5.3. */
uint64_t rule_reserved(enum shape shape, enum level level, bool maps_page, bool nxe, unsigned physical_bits)
{
	uint64_t reserved = 0;

	if (shape_is_32(shape))
		return level == LEVEL_PDE && maps_page ? bits(21, 21)
						       : 0; /* 20:13 are PSE-36's address bits */
	reserved |= bits(51, physical_bits);
	if (shape_is_pae(shape))
		reserved |= bits(62, 52);
	if (level == LEVEL_PDPTE && shape_is_pae(shape))
		return reserved | bits(63, 63) | bits(8, 5) | bits(2, 1);
	if (!nxe)
		reserved |= bits(63, 63);
	if (level == LEVEL_PML4E || level == LEVEL_PML5E)
		reserved |= bits(7, 7);
	if (level == LEVEL_PDE && maps_page)
		reserved |= bits(20, 13);
	if (level == LEVEL_PDPTE && maps_page)
		reserved |= bits(29, 13);
	return reserved;
}

/* ---- the access ---- */

bool access_writes(enum access access)
{
	return access == ACCESS_OF_WRITE || access == ACCESS_OF_MODIFY || access == ACCESS_OF_SYSTEM_WRITE;
}

/* 4.6: accesses to descriptor tables and the TSS are the supervisor's at every CPL: implicit. */
static bool is_implicit(enum access access)
{
	return access == ACCESS_OF_SYSTEM_READ || access == ACCESS_OF_SYSTEM_WRITE;
}

static bool is_user_access(enum access access, const struct controls *c)
{
	return c->cpl == 3 && !is_implicit(access);
}

static bool is_fetch(enum access access) { return access == ACCESS_OF_FETCH; }

/* ---- 4.6: rights ---- */

/* What all entries of a translation together give. */
struct rights {
	bool user_page, writable, no_execute;
};

/* 4.6: U/S and R/W must be 1 in every entry, XD in any entry counts; PAE's PDPTEs have none of them. */
static struct rights rights_of(const struct path *path)
{
	struct rights rights = {true, true, false};

	for (unsigned i = 0; i < path->count; i++) {
		const struct path_entry *entry = &path->entry[i];

		if (entry->level == LEVEL_PDPTE && shape_is_pae(path->shape))
			continue;
		rights.user_page = rights.user_page && (entry->value & PTE_U);
		rights.writable = rights.writable && (entry->value & PTE_W);
		rights.no_execute = rights.no_execute || (entry->value & PTE_NX);
	}
	return rights;
}

/* 4.6.2: keys are of user-mode addresses, with CR4.PKE, in 4- and 5-level paging; fetches have none. */
static bool key_denies(const struct path *path, struct rights rights, enum access access, bool write,
		       const struct controls *c)
{
	if (!c->pke || !shape_is_ia32e(path->shape) || !rights.user_page || is_fetch(access))
		return false;
	return c->key_ad || (c->key_wd && write && (c->wp || is_user_access(access, c)));
}

/* 4.6.1, protection keys apart: does the processor permit one read, write or fetch? */
static bool rights_permit(const struct path *path, struct rights rights, enum access access, bool write,
			  const struct controls *c)
{
	bool executable = !rights.no_execute || !c->nxe || shape_is_32(path->shape);

	if (is_user_access(access, c)) {
		if (is_fetch(access))
			return rights.user_page && executable;
		return rights.user_page && (!write || rights.writable);
	}
	if (is_fetch(access))
		return executable && !(rights.user_page && c->smep);
	if (rights.user_page && c->smap && (is_implicit(access) || !c->ac))
		return false;
	return !write || rights.writable || !c->wp;
}

/* ---- 4.7: the error code ---- */

/* W/R, U/S and I/D describe the access; P and RSVD say why there is no translation. */
static uint32_t error_code(const struct path *path, enum access access, bool write, const struct controls *c,
			   bool present, bool reserved, bool key)
{
	bool fetches_show = c->smep || (c->nxe && !shape_is_32(path->shape));

	return (present ? PF_P : 0) | (write ? PF_W : 0) | (is_user_access(access, c) ? PF_U : 0) |
	       (reserved ? PF_RSVD : 0) | (is_fetch(access) && fetches_show ? PF_I : 0) | (key ? PF_PK : 0);
}

static void add_error(struct promise *promise, uint32_t error, bool on_amd)
{
	for (unsigned i = 0; i < promise->errors; i++) {
		if (promise->error[i] == error)
			return;
	}
	promise->error[promise->errors] = error;
	promise->error_on_amd[promise->errors++] = on_amd;
}

static void add_reason(struct promise *promise, const char *key)
{
	for (unsigned i = 0; i < promise->reason_count; i++) {
		if (!strcmp(promise->reasons[i], key))
			return;
	}
	if (promise->reason_count < REASONS_MAX)
		promise->reasons[promise->reason_count++] = key;
}

/* ---- one read, write or fetch ---- */

/* 4.5: an entry that is not present, or present with a reserved bit, ends the translation. */
static bool ends_translation(const struct path *path, const struct path_entry *entry,
			     const struct controls *c, bool *reserved)
{
	bool maps_page = entry == &path->entry[path->count - 1];

	*reserved = false;
	if (!(entry->value & PTE_P))
		return true;
	*reserved =
		entry->value & rule_reserved(path->shape, entry->level, maps_page, c->nxe, PHYSICAL_BITS_MAX);
	return *reserved;
}

/* The clauses of the controls that this access depends on. */
static void cite_rights(struct promise *promise, const struct path *path, enum access access,
			const struct controls *c)
{
	add_reason(promise, "SDM_ACCESS_RIGHTS");
	if (access_writes(access))
		add_reason(promise, is_user_access(access, c) ? "APM_RW_BIT" : "APM_CR0_WP");
	if (is_fetch(access) && !shape_is_32(path->shape))
		add_reason(promise, "APM_NO_EXECUTE");
	if (is_fetch(access) && c->smep)
		add_reason(promise, "APM_SMEP");
	if (!is_fetch(access) && c->smap && !is_user_access(access, c))
		add_reason(promise, "APM_SMAP");
	if (c->pke && shape_is_ia32e(path->shape)) {
		add_reason(promise, "SDM_PKU");
		add_reason(promise, "APM_PROTECTION_KEYS");
	}
}

/* Adds what becomes of a read (or fetch) or a write to @promise; whether it faults. */
static bool judge_one(struct promise *promise, const struct path *path, enum access access, bool write,
		      const struct controls *c)
{
	struct rights rights = rights_of(path);
	bool key, permitted;

	promise->used = path->count;
	for (unsigned i = 0; i < path->count; i++) {
		bool reserved;

		if (!ends_translation(path, &path->entry[i], c, &reserved))
			continue;
		promise->used = i;
		promise->not_used = true;
		add_error(promise, error_code(path, access, write, c, reserved, reserved, false), false);
		add_reason(promise, "SDM_PAGE_FAULTS");
		add_reason(promise, "APM_PAGE_FAULT");
		return true;
	}
	key = key_denies(path, rights, access, write, c);
	permitted = rights_permit(path, rights, access, write, c);
	cite_rights(promise, path, access, c);
	if (permitted && !key)
		return false;
	add_reason(promise, "SDM_PAGE_FAULTS");
	add_error(promise, error_code(path, access, write, c, true, false, key), false);
	/* The APM names PK for a violation of the key, and does not say what stands there beside another. */
	if (key && !permitted)
		add_error(promise, error_code(path, access, write, c, true, false, false), true);
	return true;
}

struct promise rule_promise(const struct path *path, enum access access, const struct controls *controls)
{
	struct promise promise = {0};
	bool modifies = access == ACCESS_OF_MODIFY || access == ACCESS_OF_SYSTEM_WRITE;

	promise.faults = judge_one(&promise, path, access, access_writes(access), controls);
	/* Where the read of a read-modify-write faults by itself, it may come first: no clause orders them.
	 */
	if (promise.faults && modifies)
		judge_one(&promise, path, access, false, controls);
	if (!promise.faults)
		add_reason(&promise, "SDM_ACCESSED_DIRTY");
	if (!promise.faults)
		add_reason(&promise, "APM_ACCESSED_DIRTY");
	return promise;
}
