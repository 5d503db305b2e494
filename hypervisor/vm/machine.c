#include "vm/machine.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "x86/control_device.h"

#define HUGE_PAGE (2u << 20)

uint64_t machine_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- what devices tell the machine ---- */

/* The first reason stands: what follows it in the same instruction is its consequence. */
static void end_with(struct machine *machine, enum machine_event event, uint32_t value)
{
	if (machine->ended)
		return;
	machine->ended = true;
	machine->end = (struct machine_end){.event = event, .value = value};
	machine->engine->ops->request_stop(machine->engine);
}

void machine_stop(struct machine *machine, enum machine_event event) { end_with(machine, event, 0); }

static void unclaimed(void *owner, const struct bus_access *access)
{
	struct machine *machine = owner;
	char text[128];

	if (machine->ended)
		return;
	end_with(machine, MACHINE_UNCLAIMED, 0);
	bus_access_text(access, text, sizeof(text));
	snprintf(machine->end.why, sizeof(machine->end.why), "no device answers: %s", text);
}

static void passed(void *owner, const struct bus_access *access, bool claimed)
{
	struct machine *machine = owner;

	if (machine->config.passed)
		machine->config.passed(machine->config.owner, access, claimed);
}

static void misused(void *owner, const struct bus_access *access)
{
	struct machine *machine = owner;
	char text[128];

	if (!machine->control.present) {
		if (machine->bus.open_bus)
			passed(machine, access, false);
		else
			unclaimed(machine, access);
		return;
	}
	if (machine->ended)
		return;
	end_with(machine, MACHINE_MISUSED, 0);
	bus_access_text(access, text, sizeof(text));
	snprintf(machine->end.why, sizeof(machine->end.why), "misuse of the control device: %s", text);
}

static void command(void *owner, uint32_t value)
{
	end_with(owner, value == CONTROL_READY ? MACHINE_READY : MACHINE_DONE, 0);
}

static void exited(void *owner, uint32_t value) { end_with(owner, MACHINE_EXIT, value); }

static void reset_asked(void *owner) { end_with(owner, MACHINE_RESET, 0); }

static void power_off(void *owner) { end_with(owner, MACHINE_POWER_OFF, 0); }

static void sleep_asked(void *owner)
{
	struct machine *machine = owner;

	machine->sleeps = true;
	machine->engine->ops->request_stop(machine->engine);
}

static void wake_asked(void *owner)
{
	struct machine *machine = owner;

	machine->wakes = true;
	machine->engine->ops->request_stop(machine->engine);
}

static void smi_asked(void *owner)
{
	struct machine *machine = owner;

	machine->engine->ops->smi(machine->engine, 0);
}

/* Counts a byte of output. False: it is one too many. */
static bool may_print(struct machine *machine)
{
	if (machine->printed++ < machine->output_limit)
		return true;
	end_with(machine, MACHINE_OUTPUT, 0);
	return false;
}

static void console_printed(void *owner, uint8_t byte)
{
	struct machine *machine = owner;

	if (may_print(machine))
		machine->config.console(machine->config.owner, byte);
}

static void serial_sent(void *owner, uint8_t byte)
{
	struct machine *machine = owner;

	if (may_print(machine))
		machine->config.serial(machine->config.owner, byte);
}

static void virtio_sent(void *owner, uint8_t byte)
{
	struct machine *machine = owner;

	if (may_print(machine))
		machine->config.virtio(machine->config.owner, byte);
}

/* ---- what PCI devices do ---- */

/* An engine that has no interrupt chips cannot run a guest that wants interrupts. */
static void no_interrupts(struct machine *machine)
{
	end_with(machine, MACHINE_FAILED, 0);
	snprintf(machine->end.why, sizeof(machine->end.why),
		 "the %s engine delivers no interrupts of devices", machine->engine->ops->name);
}

static void line_changed(void *owner, unsigned irq, bool raised)
{
	struct machine *machine = owner;

	if (machine->engine->ops->interrupt_input)
		machine->engine->ops->interrupt_input(machine->engine, irq, raised);
	else
		no_interrupts(machine);
}

static void pci_line(void *owner, unsigned irq, bool raised)
{
	interrupt_lines_set(&((struct machine *)owner)->platform.lines, LINE_PCI, irq, raised);
}

static void serial_line(void *owner, bool raised)
{
	struct machine *machine = owner;

	machine->bus.changed = true;
	interrupt_lines_set(&machine->platform.lines, LINE_SERIAL, SERIAL1_IRQ, raised);
}

static void pci_msi(void *owner, uint64_t address, uint32_t data)
{
	struct machine *machine = owner;

	if (machine->engine->ops->msi)
		machine->engine->ops->msi(machine->engine, address, data);
	else
		no_interrupts(machine);
}

static const void *dma_read(void *owner, uint64_t address, uint64_t size)
{
	return machine_ram(owner, address, size);
}

static bool dma_write(void *owner, uint64_t address, const void *from, size_t size)
{
	return machine_write(owner, address, from, size);
}

static int attach_peripherals(struct machine *machine)
{
	struct peripherals_config config = machine->config.peripherals;
	const struct dma dma = {machine, dma_read, dma_write};

	config.owner = machine;
	config.sent = virtio_sent;
	return peripherals_attach(&machine->peripherals, &config, &dma, &machine->pci);
}

static int attach_platform(struct machine *machine)
{
	const struct dma dma = {machine, dma_read, dma_write};
	const struct platform_config config = {.memory = machine->config.memory,
					       .vcpus = machine->config.vcpus ? machine->config.vcpus : 1,
					       .hpet = !machine->config.no_hpet,
					       .rtc_start = machine->config.rtc_start,
					       .pci = &machine->pci,
					       .owner = machine,
					       .interrupt = line_changed,
					       .reset_asked = reset_asked,
					       .power_off = power_off,
					       .sleep = sleep_asked,
					       .wake = wake_asked,
					       .smi = smi_asked};

	return platform_attach(&machine->platform, &config, &dma, &machine->clock, &machine->bus);
}

/* ---- the engine's bus ---- */

static uint32_t port_in(void *owner, uint16_t port, unsigned size)
{
	return bus_port_in(&((struct machine *)owner)->bus, port, size);
}

static void port_out(void *owner, uint16_t port, unsigned size, uint32_t value)
{
	bus_port_out(&((struct machine *)owner)->bus, port, size, value);
}

static void mmio_read(void *owner, uint64_t address, void *to, unsigned size)
{
	bus_mmio_read(&((struct machine *)owner)->bus, address, to, size);
}

static void mmio_write(void *owner, uint64_t address, const void *from, unsigned size)
{
	bus_mmio_write(&((struct machine *)owner)->bus, address, from, size);
}

/* A guest that does not listen, and to which nobody can come, is not waited for. */
static uint64_t waits(void *owner, uint64_t ns)
{
	struct machine *machine = owner;
	const struct peripherals *peripherals = &machine->peripherals;
	bool real = machine->config.attended || serial_listens(&machine->serial) ||
		    (peripherals->has_console && virtio_console_live(&peripherals->console));

	return real && machine->config.wait ? machine->config.wait(machine->config.owner, ns) : ns;
}

/* Whether a halt without end may have one yet: by input, or by somebody who attends to the machine. */
static bool attended(struct machine *machine)
{
	if (!machine->config.attended)
		return waits(machine, UINT64_MAX) != UINT64_MAX;
	machine->config.wait(machine->config.owner, UINT64_MAX);
	return true;
}

/* ---- life ---- */

void *machine_device(struct machine *machine, unsigned index, const struct state_table **table)
{
	switch (index) {
	case 0: *table = &serial_state; return &machine->serial;
	case 1: *table = &debug_state; return &machine->debug;
	case 2: *table = &control_state; return &machine->control;
	case MACHINE_APART: *table = &pci_state; return &machine->pci;
	case 4: *table = &pci_host_bridge_state; return &machine->pci.host_bridge;
	case 5: *table = &pci_isa_bridge_state; return &machine->pci.isa_bridge;
	default: index -= 6; break;
	}
	if (index < platform_devices(&machine->platform))
		return platform_device(&machine->platform, index, table);
	return peripherals_device(&machine->peripherals, index - platform_devices(&machine->platform), table);
}

static int attach_devices(struct machine *machine)
{
	struct bus *bus = &machine->bus;
	int error;

	bus->owner = machine;
	bus->unclaimed = unclaimed;
	bus->passed = passed;
	bus->open_bus = machine->config.open_bus;
	machine->serial.owner = machine;
	machine->serial.sent = serial_sent;
	machine->serial.interrupt = serial_line;
	if (!serial_use_clock(&machine->serial, &machine->clock))
		return -ENOSPC;
	serial_reset(&machine->serial);
	machine->debug.owner = machine;
	machine->debug.printed = console_printed;
	machine->debug.exited = exited;
	machine->pci.owner = machine;
	machine->pci.reset_asked = reset_asked;
	machine->pci.interrupt = pci_line;
	machine->pci.msi = pci_msi;
	machine->control.present = machine->config.control;
	machine->control.owner = machine;
	machine->control.command = command;
	machine->control.misused = misused;
	error = serial_attach(&machine->serial, bus, SERIAL1_PORT);
	if (!error)
		error = debug_attach(&machine->debug, bus);
	if (!error)
		error = pci_attach(&machine->pci, bus);
	if (!error)
		error = attach_platform(machine);
	if (!error)
		error = attach_peripherals(machine);
	return error ? error : control_attach(&machine->control, bus);
}

/* RAM below the hole, and what is left of it above 4 GiB. */
static int add_memory(struct machine *machine)
{
	const struct engine_ops *ops = machine->config.engine;
	uint64_t low = memory_low(machine->config.memory), high = machine->config.memory - low;
	int error = ops->memory_add(machine->engine, 0, low, machine->ram, false);

	if (!error && high)
		error = ops->memory_add(machine->engine, MEMORY_HIGH_BASE, high, machine->ram + low, false);
	return error;
}

static int open_engine(struct machine *machine, char *why, size_t size)
{
	const struct machine_config *config = &machine->config;
	struct engine_config engine = {.cpu = config->cpu,
				       .device = config->device,
				       .clock = &machine->clock,
				       .vcpus = config->vcpus,
				       .seed = config->seed,
				       .slice = config->slice,
				       .wall_clock = config->rtc_start,
				       .bus = {.owner = machine,
					       .port_in = port_in,
					       .port_out = port_out,
					       .mmio_read = mmio_read,
					       .mmio_write = mmio_write,
					       .idle = waits}};
	int error = config->engine->open(&machine->engine, &engine, why, size);

	if (!error)
		error = add_memory(machine);
	machine->vcpu_count = config->vcpus ? config->vcpus : 1;
	for (unsigned i = 0; i < machine->vcpu_count && !error; i++)
		error = config->engine->vcpu_new(machine->engine, &machine->vcpus[i]);
	machine->vcpu = machine->vcpus[0];
	return error;
}

/* Where huge pages fit, if the system has any. NULL: no memory. */
static uint8_t *ram_new(uint64_t size)
{
	uint8_t *all = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	size_t before = -(uintptr_t)all % HUGE_PAGE;

	if (all == MAP_FAILED)
		return NULL;
	if (before)
		munmap(all, before);
	munmap(all + before + size, HUGE_PAGE - before);
	return all + before;
}

int machine_new(struct machine **made, const struct machine_config *config, char *why, size_t size)
{
	struct machine *machine = calloc(1, sizeof(*machine));
	int error = -ENOMEM;

	why[0] = 0;
	if (machine) {
		machine->config = *config;
		machine->slice = MACHINE_SLICE;
		clock_init(&machine->clock);
		machine->ram = ram_new(config->memory);
		if (machine->ram)
			error = attach_devices(machine);
	}
	if (!error)
		error = open_engine(machine, why, size);
	if (!error && !machine->engine->ops->smi_for_board(machine->engine))
		acpi_pm_without_smi(&machine->platform.pm);
	if (error) {
		if (!why[0])
			snprintf(why, size, "%s", strerror(-error));
		machine_free(machine);
		return error;
	}
	*made = machine;
	return 0;
}

void machine_free(struct machine *machine)
{
	if (!machine)
		return;
	if (machine->engine)
		machine->engine->ops->close(machine->engine);
	platform_free(&machine->platform);
	if (machine->ram)
		munmap(machine->ram, machine->config.memory);
	if (machine->rom)
		munmap(machine->rom, machine->rom_size);
	free(machine);
}

/* The levels of lines follow from the devices', which tell them to chips that are reset before. */
void machine_reset(struct machine *machine)
{
	machine->bus.changed = true;
	machine->engine->ops->reset(machine->engine);
	serial_reset(&machine->serial);
	pci_reset(&machine->pci);
	platform_reset(&machine->platform);
	peripherals_reset(&machine->peripherals);
	machine->control.ready = 0;
}

uint8_t *machine_ram(struct machine *machine, uint64_t address, uint64_t size)
{
	uint64_t memory = machine->config.memory, low = memory_low(memory);

	if (address >= MEMORY_HIGH_BASE) {
		address -= MEMORY_HIGH_BASE - low;
		low = memory;
	}
	return address < low && size <= low - address ? machine->ram + address : NULL;
}

bool machine_write(struct machine *machine, uint64_t address, const void *from, size_t size)
{
	return machine->engine->ops->memory_write(machine->engine, address, from, size);
}

int machine_add_rom(struct machine *machine, const uint8_t *data, size_t size)
{
	if (size == 0 || size % 4096 || size > ROM_MAX || (machine->rom && size != machine->rom_size))
		return -EINVAL;
	if (machine->rom) {
		memcpy(machine->rom, data, size);
		return 0;
	}
	machine->rom = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (machine->rom == MAP_FAILED) {
		machine->rom = NULL;
		return -ENOMEM;
	}
	machine->rom_size = size;
	memcpy(machine->rom, data, size);
	return machine->engine->ops->memory_add(machine->engine, (1ull << 32) - size, size, machine->rom,
						true);
}

void machine_firmware(struct machine *machine)
{
	platform_firmware(&machine->platform);
	/* The lines that PCI_IRQ() names and the SCI. */
	if (machine->engine->ops->firmware)
		machine->engine->ops->firmware(machine->engine, 1u << 9 | 1u << 10 | 1u << 11);
}

/* ---- S3: memory stays, and the processors lose what they had ---- */

/* Nothing starts them but a SIPI, which nobody sends. */
static void fall_asleep(struct machine *machine)
{
	const struct engine_ops *ops = machine->engine->ops;

	for (unsigned i = 0; i < machine->vcpu_count; i++) {
		struct vcpu_state state;

		ops->vcpu_save(machine->vcpus[i], &state);
		state.activity = ACTIVITY_WAIT_FOR_SIPI;
		ops->vcpu_load(machine->vcpus[i], &state);
	}
}

/* Firmware would go on in real mode at the vector in the FACS; where there is one, it finds CMOS saying so.
 */
static void wake_up(struct machine *machine)
{
	const struct engine_ops *ops = machine->engine->ops;
	uint32_t vector = machine->rom ? 0 : platform_waking_vector(&machine->platform);
	struct vcpu_state state;

	machine_reset(machine);
	platform_woken(&machine->platform);
	if (machine->rom)
		return;
	if (vector == 0) {
		reset_asked(machine);
		return;
	}
	machine_firmware(machine);
	ops->vcpu_save(machine->vcpu, &state);
	state.segment[CS].selector = (uint16_t)(vector >> 4);
	state.segment[CS].base = vector & 0xffff0;
	state.rip = vector & 0xf;
	ops->vcpu_load(machine->vcpu, &state);
}

static void sleep_or_wake(struct machine *machine)
{
	if (machine->sleeps)
		fall_asleep(machine);
	if (machine->wakes)
		wake_up(machine);
	machine->sleeps = machine->wakes = false;
}

/* ---- running ---- */

/* What the engine's exit means. Returns false where the run goes on. */
static bool exit_ends(struct machine *machine, enum engine_exit exit, bool last)
{
	switch (exit) {
	case ENGINE_STOPPED: return machine->ended;
	case ENGINE_PAUSED: return false;
	case ENGINE_BUDGET:
		if (last && !machine->ended)
			machine->end = (struct machine_end){.event = MACHINE_BUDGET};
		return last || machine->ended;
	case ENGINE_HALTED:
		if (!machine->ended && attended(machine))
			return false;
		if (!machine->ended)
			machine->end = (struct machine_end){.event = MACHINE_HALTED};
		return true;
	case ENGINE_SHUTDOWN: machine->end = (struct machine_end){.event = MACHINE_SHUTDOWN}; return true;
	case ENGINE_FAILED: break;
	}
	machine->end = (struct machine_end){.event = MACHINE_FAILED};
	snprintf(machine->end.why, sizeof(machine->end.why), "%s",
		 machine->engine->ops->failure(machine->engine));
	return true;
}

const struct machine_end *machine_run(struct machine *machine, const struct machine_limits *limits)
{
	const struct engine_ops *ops = machine->engine->ops;
	uint64_t began = ops->retired(machine->engine);

	machine->ended = machine->sleeps = machine->wakes = false;
	machine->printed = 0;
	machine->output_limit = limits->output;
	for (;;) {
		uint64_t spent = ops->retired(machine->engine) - began;
		uint64_t left = spent < limits->insns ? limits->insns - spent : 0;
		uint64_t slice = left < machine->slice ? left : machine->slice;

		if (exit_ends(machine, ops->run(machine->engine, slice), slice == left))
			return &machine->end;
		sleep_or_wake(machine);
		if (machine->config.idle)
			machine->config.idle(machine->config.owner);
		if (machine->config.signal && *machine->config.signal) {
			machine->end = (struct machine_end){.event = MACHINE_SIGNAL};
			return &machine->end;
		}
		if (limits->deadline != UINT64_MAX && machine_now() >= limits->deadline) {
			machine->end = (struct machine_end){.event = MACHINE_TIMEOUT};
			return &machine->end;
		}
	}
}

void machine_end_text(const struct machine_end *end, char *text, size_t size)
{
	static const char *const texts[] = {
		[MACHINE_READY] = "the guest said READY",
		[MACHINE_DONE] = "the guest said DONE",
		[MACHINE_RESET] = "the guest reset the machine",
		[MACHINE_POWER_OFF] = "the guest switched the machine off",
		[MACHINE_SHUTDOWN] = "the machine shut down (triple fault)",
		[MACHINE_HALTED] = "the guest halted, and nothing can wake it",
		[MACHINE_BUDGET] = "the instruction budget is spent",
		[MACHINE_TIMEOUT] = "the time limit is over",
		[MACHINE_OUTPUT] = "the guest printed without end",
		[MACHINE_SIGNAL] = "stopped by a signal",
		[MACHINE_QUIT] = "stopped at the control socket",
	};

	if (end->event == MACHINE_EXIT)
		snprintf(text, size, "the guest wrote 0x%x to the debug exit", end->value);
	else
		snprintf(text, size, "%s", end->why[0] ? end->why : texts[end->event]);
}
