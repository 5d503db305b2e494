# Guests: bare-metal ELF64 files, one a suite: guests/lib, the suite's case table, the text of
# its case section, and the sources of guests/NAME where there is such a folder.
#
#   build/guests/NAME.elf <- build/suites/NAME.c, build/suites/NAME.txt (suites/suites.mk)
#   build/guests/selftest.elf, hand-written cases for the library itself, has both from guests/selftest,
#   build/hostile/hostile.elf, what attacks visor, from guests/hostile

GUEST_CC ?= gcc
GUEST_FLAGS := -m64 -ffreestanding -fno-pic -fno-pie -mcmodel=small -Iguests -Ihypervisor -MMD -MP
GUEST_CFLAGS := -std=gnu17 $(WARNINGS) -O2 $(GUEST_FLAGS) -fno-builtin -fno-stack-protector -mno-red-zone \
	-mgeneral-regs-only -fcf-protection=none -fno-asynchronous-unwind-tables -fno-strict-aliasing \
	-fno-delete-null-pointer-checks
GUEST_LDFLAGS := -m64 -nostdlib -static -no-pie -Wl,-T,guests/lib/guest.ld -Wl,--build-id=none \
	-Wl,-z,noexecstack -Wl,--no-warn-rwx-segments -Wl,-z,max-page-size=4096

HAND_WRITTEN := selftest hostile
GUESTS := selftest $(SUITES)
GUEST_LIB := $(patsubst guests/%,build/guests/%.o,$(sort $(wildcard guests/lib/*.c guests/lib/*.S)))
# Stories of these suites are told by another one as well.
STORIES_migration := interrupts svm vmx
guest_own = $(patsubst guests/%,build/guests/%.o,$(sort $(filter-out guests/$(1)/section.c, \
	$(foreach folder,$(1) $(STORIES_$(1)),$(wildcard guests/$(folder)/*.c guests/$(folder)/*.S)))))

.PHONY: guests
guests: $(GUESTS:%=build/guests/%.elf) $(GUESTS:%=build/guests/%.bin) build/guests/rom/reset.bin
.SECONDARY:

build/guests/%.c.o: guests/%.c guests/guests.mk | $(DEPS)
	@mkdir -p $(@D)
	@echo '  CC      $@'
	$(Q)$(GUEST_CC) $(GUEST_CFLAGS) -c -o $@ $<

build/guests/%.S.o: guests/%.S guests/guests.mk | $(DEPS)
	@mkdir -p $(@D)
	@echo '  CC      $@'
	$(Q)$(GUEST_CC) $(GUEST_FLAGS) -c -o $@ $<

build/guests/%.table.o: build/suites/%.c guests/guests.mk
	@mkdir -p $(@D)
	@echo '  CC      $@'
	$(Q)$(GUEST_CC) $(GUEST_CFLAGS) -O0 -c -o $@ $<

# The hand-written suites bring their tables with their own sources.
$(HAND_WRITTEN:%=build/guests/%.table.o): | $(DEPS)
	@mkdir -p $(@D)
	@echo '  CC      $@'
	$(Q)echo | $(GUEST_CC) $(GUEST_FLAGS) -MF $@.d -xc -c -o $@ -

$(HAND_WRITTEN:%=build/guests/%/section): build/guests/%/section: guests/%/section.c | $(DEPS)
	@mkdir -p $(@D)
	@echo '  LD      $@'
	$(Q)$(CC) -std=gnu17 $(WARNINGS) -Iguests -Ihypervisor -MMD -MP -o $@ $<

$(HAND_WRITTEN:%=build/suites/%.txt): build/suites/%.txt: build/guests/%/section
	@mkdir -p $(@D)
	@echo '  EXPAND  $@'
	$(Q)$< >$@

define guest_rule
$(2): build/guests/$(1).table.o $(call guest_own,$(1)) $(GUEST_LIB) \
		build/suites/$(1).txt guests/lib/guest.ld
	@mkdir -p $$(@D)
	@echo '  LD      $$@'
	$(Q)$(GUEST_CC) $(GUEST_LDFLAGS) -o $$@.part $(GUEST_LIB) $(call guest_own,$(1)) build/guests/$(1).table.o
	$(Q)objcopy --add-section .trapline.cases=build/suites/$(1).txt $$@.part $$@
	@rm -f $$@.part
	@truncate -s %512 $$@ # whole sectors: --disk-image
endef
$(foreach guest,$(GUESTS),$(eval $(call guest_rule,$(guest),build/guests/$(guest).elf)))

# What attacks visor: most of its cases must not pass, so it stands apart from what a plain run selects.
HOSTILE_GUEST := build/hostile/hostile.elf
guests: $(HOSTILE_GUEST)
$(eval $(call guest_rule,hostile,$(HOSTILE_GUEST)))

# The same as a flat image, whose multiboot header says where it belongs: for machines without a loader.
build/guests/%.bin: build/guests/%.elf
	@echo '  OBJCOPY $@'
	$(Q)objcopy -O binary $< $@

# What `make bench` runs: not a suite, so it stands apart; and the ROM that starts a guest without a loader.
BENCH_GUEST := build/bench/bench.elf build/bench/bench.bin build/guests/rom/reset.bin
BENCH_PARTS := bench/main.c bench/dirty.c bench/kernels.S lib/boot.S lib/machine.c lib/report.c lib/select.c
build/bench/bench.elf: $(BENCH_PARTS:%=build/guests/%.o) guests/lib/guest.ld
	@mkdir -p $(@D)
	@echo '  LD      $@'
	$(Q)$(GUEST_CC) $(GUEST_LDFLAGS) -o $@ $(BENCH_PARTS:%=build/guests/%.o)

# The same as a flat image, whose multiboot header says where it belongs.
build/bench/bench.bin: build/bench/bench.elf
	@echo '  OBJCOPY $@'
	$(Q)objcopy -O binary $< $@

# A guest that is worth moving, for runner/tests/test_migration*.py and measurements.
LIVE_GUEST := build/live/live.elf
LIVE_PARTS := live/main.c lib/boot.S lib/machine.c lib/report.c lib/select.c
guests: $(LIVE_GUEST)
$(LIVE_GUEST): $(LIVE_PARTS:%=build/guests/%.o) guests/lib/guest.ld
	@mkdir -p $(@D)
	@echo '  LD      $@'
	$(Q)$(GUEST_CC) $(GUEST_LDFLAGS) -o $@ $(LIVE_PARTS:%=build/guests/%.o)

# A PC's test suite as people write them for QEMU's machine: multiboot ELF32 and ELF64 files that know nothing of
# visor. runner/tests/test_pc.py runs them under visor and QEMU.
PC_SOURCES := $(sort $(wildcard guests/pc/*.c)) guests/pc/trampoline.S
define pc_rule
build/pc/$(1)/%.o: guests/pc/% guests/pc/pc.h guests/guests.mk | $$(DEPS)
	@mkdir -p $$(@D)
	@echo '  CC      $$@'
	$(Q)$$(GUEST_CC) $$(GUEST_CFLAGS_PC) -m$(1) -c -o $$@ $$<
build/pc/pc$(1).elf: $$(PC_SOURCES:guests/pc/%=build/pc/$(1)/%.o) build/pc/$(1)/start$(1).S.o guests/pc/pc.ld
	@echo '  LD      $$@'
	$(Q)$$(GUEST_CC) -m$(1) -nostdlib -static -no-pie -Wl,-T,guests/pc/pc.ld -Wl,--build-id=none -Wl,-z,noexecstack \
		-Wl,--no-warn-rwx-segments -Wl,-z,max-page-size=4096 -o $$@ $$(filter %.o,$$^)
endef
GUEST_CFLAGS_PC := -std=gnu17 $(WARNINGS) -O2 -ffreestanding -fno-pic -fno-pie -fno-builtin -fno-stack-protector \
	-mno-red-zone -mgeneral-regs-only -fcf-protection=none -fno-asynchronous-unwind-tables -fno-strict-aliasing
$(eval $(call pc_rule,32))
$(eval $(call pc_rule,64))
guests: build/pc/pc32.elf build/pc/pc64.elf

# What programs devices at random: hypervisor/fuzz/guest_test.c runs it.
FUZZ_GUEST := build/fuzz/fuzz.elf
FUZZ_PARTS := build/guests/fuzz/main.c.o build/guests/fuzz/gp.S.o build/pc/64/start64.S.o
$(FUZZ_GUEST): $(FUZZ_PARTS) guests/pc/pc.ld
	@mkdir -p $(@D)
	@echo '  LD      $@'
	$(Q)$(GUEST_CC) -m64 -nostdlib -static -no-pie -Wl,-T,guests/pc/pc.ld -Wl,--build-id=none -Wl,-z,noexecstack \
		-Wl,--no-warn-rwx-segments -Wl,-z,max-page-size=4096 -o $@ $(FUZZ_PARTS)
guests: $(FUZZ_GUEST)

# The hypervisor between a machine and a guest: kmod/core on bare metal.
L1 := build/l1/l1.elf
# Compiled as a whole, so that hw.h's instructions are where they are wanted and not behind calls.
L1_WHOLE := -flto=auto
L1_CFLAGS := -std=gnu17 $(WARNINGS) -O2 -m64 -ffreestanding -fno-pic -fno-pie -mcmodel=kernel -I. -Iguests -Ihypervisor \
	-MMD -MP -fno-builtin -fno-stack-protector -mno-red-zone -mgeneral-regs-only -fcf-protection=none \
	-fno-asynchronous-unwind-tables -fno-strict-aliasing -fno-delete-null-pointer-checks -fno-jump-tables $(L1_WHOLE)
L1_SOURCES := $(sort $(wildcard guests/l1/*.c guests/l1/*.S kmod/core/*.c))
build/l1/%.o: % guests/guests.mk | $(DEPS)
	@mkdir -p $(@D)
	@echo '  CC      $@'
	$(Q)$(GUEST_CC) $(L1_CFLAGS) -c -o $@ $<
$(L1): $(filter-out %_test.c.o,$(L1_SOURCES:%=build/l1/%.o)) guests/l1/l1.ld
	@echo '  LD      $@'
	$(Q)$(GUEST_CC) $(filter-out -MMD -MP,$(L1_CFLAGS)) -nostdlib -static -no-pie -Wl,-T,guests/l1/l1.ld -Wl,--build-id=none -Wl,-z,noexecstack \
		-Wl,--no-warn-rwx-segments -Wl,-z,max-page-size=4096 -o $@ $(filter %.o,$^)
guests: $(L1) $(L1:.elf=.bin)
build/l1/%.bin: build/l1/%.elf
	@echo '  OBJCOPY $@'
	$(Q)objcopy -O binary $< $@
-include $(L1_SOURCES:%=build/l1/%.d)

build/guests/rom/reset.bin: build/guests/rom/reset.S.o
	@echo '  OBJCOPY $@'
	$(Q)objcopy -O binary -j .rom $< $@

-include $(wildcard build/guests/*.d build/guests/*/*.d)
