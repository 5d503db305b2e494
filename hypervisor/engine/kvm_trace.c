/*
 * What a KVM vCPU does, told: instructions by single-stepping, exits by the kernel's statistics. The
 * only part of the engine that sees the decoder, for the text of an instruction.
 */
#include "engine/kvm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cpu/decode.h"
#include "x86/descriptors.h"
#include "x86/paging.h"

/* ---- instructions ---- */

#define HLT 0xf4

size_t kvm_trace_code(struct kvm_vcpu *vcpu, uint8_t *bytes, size_t size, uint64_t *rip)
{
	struct kvm_sregs sregs = {0};
	struct kvm_regs regs = {0};
	size_t count = 0;

	ioctl(vcpu->fd, KVM_GET_REGS, &regs);
	ioctl(vcpu->fd, KVM_GET_SREGS, &sregs);
	*rip = regs.rip;
	while (count < size) {
		uint64_t linear = regs.rip + count + (sregs.cs.l ? 0 : sregs.cs.base);
		struct kvm_translation translation = {.linear_address =
							      sregs.cs.l ? linear : (uint32_t)linear};
		size_t part = PAGE_SIZE - (linear & PAGE_MASK);
		const uint8_t *from;

		if (part > size - count)
			part = size - count;
		if (ioctl(vcpu->fd, KVM_TRANSLATE, &translation) || !translation.valid)
			break;
		from = kvm_memory_at(kvm_engine_of(vcpu), translation.physical_address, part);
		if (!from)
			break;
		memcpy(bytes + count, from, part);
		count += part;
	}
	return count;
}

static uint32_t code_mode(const struct kvm_vcpu *vcpu)
{
	struct kvm_sregs sregs = {0};
	struct kvm_regs regs = {0};
	uint32_t mode;

	ioctl(vcpu->fd, KVM_GET_SREGS, &sregs);
	ioctl(vcpu->fd, KVM_GET_REGS, &regs);
	mode = sregs.cs.db ? CODE_32 : CODE_16;
	if (sregs.efer & EFER_LMA && sregs.cs.l)
		mode = CODE_64;
	if (sregs.cr0 & CR0_PE)
		mode |= CODE_PE;
	if (sregs.cr0 & CR0_PE && regs.rflags & RFLAGS_VM)
		mode |= CODE_VM86;
	if (sregs.efer & EFER_LMA)
		mode |= CODE_LMA;
	return mode;
}

static bool decode_bytes(const struct kvm_vcpu *vcpu, struct insn *insn, const uint8_t *bytes, size_t count)
{
	return decode_init() < 0 && decode(insn, bytes, count, code_mode(vcpu), NULL) == DECODE_OK;
}

void kvm_trace_text(struct kvm_vcpu *vcpu, const uint8_t *bytes, size_t count, uint64_t rip, char *text,
		    size_t size)
{
	struct insn insn = {0};
	bool known = decode_bytes(vcpu, &insn, bytes, count);
	char name[96];
	size_t used = 0;

	text[0] = 0;
	if (known && insn.length < count)
		count = insn.length;
	for (size_t i = 0; i < count && used < size; i++)
		used += (size_t)snprintf(text + used, size - used, "%s%02x", i ? " " : "", bytes[i]);
	if (known && used < size) {
		disassemble(&insn, rip, name, sizeof(name));
		snprintf(text + used, size - used, " (%s)", name);
	}
}

/*
 * The first instruction is told by no step, and on some devices the one behind a port access is not
 * either.
 */
bool kvm_trace_step(struct kvm_vcpu *vcpu)
{
	uint8_t bytes[15];
	struct insn insn = {0};
	char text[160];
	uint64_t rip;
	size_t count = kvm_trace_code(vcpu, bytes, sizeof(bytes), &rip);
	bool halted = vcpu->at_halt && rip == vcpu->after_halt;

	vcpu->at_halt = false;
	if (decode_bytes(vcpu, &insn, bytes, count)) {
		disassemble(&insn, rip, text, sizeof(text));
		vcpu->at_halt = bytes[insn.length - 1] == HLT && strcmp(text, "hlt") == 0;
		vcpu->after_halt = rip + insn.length;
	} else {
		kvm_trace_text(vcpu, bytes, count, rip, text, sizeof(text));
	}
	if (vcpu->trace.insn)
		vcpu->trace.insn(vcpu->trace.owner, vcpu->vcpu.number, rip, text);
	return halted;
}

int kvm_trace(struct engine *engine, const struct engine_trace *trace)
{
	struct kvm_engine *kvm = kvm_of(engine);
	struct kvm_guest_debug debug = {0};

	if (trace)
		debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
	for (unsigned i = 0; i < kvm->count; i++) {
		struct kvm_vcpu *vcpu = &kvm->vcpu[i];

		if (!kvm->can.guest_debug || ioctl(vcpu->fd, KVM_SET_GUEST_DEBUG, &debug))
			return -ENOTSUP;
		vcpu->trace = trace ? *trace : (struct engine_trace){0};
	}
	return 0;
}

/* ---- statistics (Documentation/virt/kvm/api.rst, KVM_GET_STATS_FD) ---- */

static bool read_at(int fd, void *to, size_t size, uint64_t offset)
{
	return pread(fd, to, size, (off_t)offset) == (ssize_t)size;
}

static bool open_statistics(struct kvm_vcpu *vcpu)
{
	if (vcpu->statistics < 0 && kvm_engine_of(vcpu)->can.statistics)
		vcpu->statistics = ioctl(vcpu->fd, KVM_GET_STATS_FD, 0);
	return vcpu->statistics >= 0;
}

/* A histogram counts by its first bucket alone; exits are plain numbers. */
bool kvm_statistic(struct engine_vcpu *engine_vcpu, unsigned index, char *name, size_t size, uint64_t *value)
{
	struct kvm_vcpu *vcpu = kvm_vcpu_of(engine_vcpu);
	struct kvm_stats_header header;
	struct kvm_stats_desc desc;
	uint64_t at;

	if (!open_statistics(vcpu) || !read_at(vcpu->statistics, &header, sizeof(header), 0) ||
	    index >= header.num_desc)
		return false;
	at = header.desc_offset + (uint64_t)index * (sizeof(desc) + header.name_size);
	if (!read_at(vcpu->statistics, &desc, sizeof(desc), at))
		return false;
	if (size > header.name_size)
		size = header.name_size;
	if (!read_at(vcpu->statistics, name, size, at + sizeof(desc)))
		return false;
	name[size - 1] = 0;
	return read_at(vcpu->statistics, value, sizeof(*value), header.data_offset + desc.offset);
}
