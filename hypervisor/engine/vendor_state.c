#include "engine/vendor_state.h"

#include <stddef.h>
#include <string.h>

#include "x86/msr.h"

enum owner { ANY, AMD, INTEL, OTHER };

struct field {
	const char *name;
	size_t offset, size;
	enum owner owner;
	uint64_t value; /* after RESET, of each of its elements */
};

/* Whose a field is, where it is not in vendor_state.def. */
static const struct field fields[] = {
#define VCPU_FIELD(type, name) {#name, offsetof(struct vcpu_state, name), sizeof(type), ANY, 0},
#define VCPU_ARRAY(type, name, count)                                                                        \
	{#name, offsetof(struct vcpu_state, name), sizeof(type) * (count), ANY, 0},
#include "x86/vcpu_state.def"
#undef VCPU_FIELD
#undef VCPU_ARRAY
};

static const struct field owned[] = {
#define OWNED(name, whose, value)                                                                            \
	{#name, offsetof(struct vcpu_state, name), sizeof(((struct vcpu_state *)0)->name), whose, value},
#define AMD_STATE(name, value)   OWNED(name, AMD, value)
#define INTEL_STATE(name, value) OWNED(name, INTEL, value)
#define OTHER_STATE(name, value) OWNED(name, OTHER, value)
#include "x86/vendor_state.def"
};
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* What @field is by the table, or by its name. */
static struct field find(const struct field *field)
{
	struct field found = *field;

	for (size_t i = 0; i < COUNT(owned); i++)
		if (owned[i].offset == field->offset)
			return owned[i];
	if (!strncmp(field->name, "svm_", 4) || !strncmp(field->name, "vm_", 3))
		found.owner = AMD;
	else if (!strncmp(field->name, "vmx_", 4))
		found.owner = INTEL;
	return found;
}

/* Elements have 8 bytes wherever RESET makes something else than zeros. */
static bool is_reset(const struct vcpu_state *state, const struct field *field)
{
	const uint8_t *at = (const uint8_t *)state + field->offset;

	if (field->value)
		return memcmp(at, &field->value, sizeof(field->value)) == 0;
	for (size_t i = 0; i < field->size; i++)
		if (at[i])
			return false;
	return true;
}

static void set(struct vcpu_state *state, const struct field *field, uint64_t value)
{
	memset((uint8_t *)state + field->offset, 0, field->size);
	if (value)
		memcpy((uint8_t *)state + field->offset, &value, sizeof(value));
}

const char *vendor_state_convert(struct vcpu_state *state, bool to_amd)
{
	enum owner lost = to_amd ? INTEL : AMD;

	for (size_t i = 0; i < COUNT(fields); i++) {
		struct field field = find(&fields[i]);

		if ((field.owner == lost || field.owner == OTHER) && !is_reset(state, &field))
			return field.name;
	}
	for (size_t i = 0; i < COUNT(fields); i++) {
		struct field field = find(&fields[i]);

		if (field.owner == AMD || field.owner == INTEL)
			set(state, &field, field.owner == lost ? 0 : field.value);
	}
	return NULL;
}
