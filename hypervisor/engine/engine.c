#include "engine/engine.h"

#include <string.h>

const struct engine_ops *const engines[] = {&engine_soft, &engine_kvm, NULL};

const struct engine_ops *engine_find(const char *name, size_t size)
{
	for (unsigned i = 0; engines[i]; i++)
		if (strlen(engines[i]->name) == size && memcmp(engines[i]->name, name, size) == 0)
			return engines[i];
	return NULL;
}
