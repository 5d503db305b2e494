/* note.c: lines of the trace about changes of worlds. */
#include <stdarg.h>
#include <stdio.h>

#include "cpu/cpu.h"

void cpu_note(struct cpu *cpu, const char *format, ...)
{
	char text[128];
	va_list list;

	if (likely(!cpu->tracing) || !cpu->bus.trace_note)
		return;
	va_start(list, format);
	vsnprintf(text, sizeof(text), format, list);
	va_end(list);
	cpu->bus.trace_note(cpu->bus.owner, cpu, text);
}
