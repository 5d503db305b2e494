# Trapline: `make conform` is the main job, `make check` the tests. See README.md.

MODE ?= release
ifeq ($(origin CC),default)
CC := gcc
endif
# V=1 shows the commands.
ifneq ($(V),1)
Q := @
endif
PREFIX ?= /usr/local
export MODE
B := build/$(MODE)

WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Werror
CFLAGS_release := -O2 -g -DTRAPLINE_TAIL_CALLS -foptimize-sibling-calls -fno-plt
CFLAGS_asan := -O1 -g -fsanitize=address -fno-omit-frame-pointer
CFLAGS_ubsan := -O1 -g -fsanitize=undefined -fno-sanitize-recover=all
CFLAGS_tsan := -O1 -g -fsanitize=thread
CFLAGS_cov := -O0 -g --coverage
ifeq ($(CFLAGS_$(MODE)),)
$(error MODE=$(MODE) is none of release asan ubsan tsan cov)
endif
CFLAGS_ALL := -std=gnu17 $(WARNINGS) $(CFLAGS_$(MODE)) -fno-strict-aliasing -Ihypervisor -MMD -MP $(CFLAGS)
LDLIBS := -lnbd -lelf -lnettle -ljansson -lzstd -lquadmath -lm -lpthread

SOURCES := $(sort $(shell find hypervisor -name '*.c' ! -name '*_test.c' ! -name '*_bench.c'))
TESTS := $(sort $(shell find hypervisor -name '*_test.c'))
BENCHES := $(sort $(shell find hypervisor -name '*_bench.c'))
OBJECTS := $(SOURCES:%.c=$(B)/%.o)
LIBRARY := $(B)/libvisor.a
VISOR := $(B)/visor
# The core that the module and guests/l1 share, on made-up hardware.
CORE_TESTS := $(sort $(wildcard kmod/core/*_test.c))
CORE_TEST_PROGRAMS := $(CORE_TESTS:%.c=$(B)/%)
CORE_PARTS := $(patsubst %.c,$(B)/%.o,$(sort $(filter-out %_test.c,$(wildcard kmod/core/*.c)) $(wildcard kmod/test/*.c)))
TEST_PROGRAMS := $(TESTS:%.c=$(B)/%) $(CORE_TEST_PROGRAMS)
BENCH_PROGRAMS := $(BENCHES:%.c=$(B)/%)

.PHONY: all visor unit conform check check-linux check-xen check-long fuzz lint bench install format clean deps oracle
all: visor guests

visor: $(VISOR)

# ---- packages: installed once, looked at again when the list changes ----

DEPS := build/.deps
deps: $(DEPS)
$(DEPS): .ci/deps .ci/packages
	@.ci/deps
	@mkdir -p $(@D) && touch $@

# ---- visor ----

$(B)/%.o: %.c | $(DEPS)
	@mkdir -p $(@D)
	@echo '  CC      $@'
	$(Q)$(CC) $(CFLAGS_ALL) -c -o $@ $<

# It asks the processor before it goes there.
$(B)/hypervisor/migrate/checksum_avx2.o: CFLAGS_ALL += -mavx2

$(LIBRARY): $(filter-out $(B)/hypervisor/cli/main.o,$(OBJECTS))
	@rm -f $@
	ar qcs $@ $^ # not r: two folders may hold files of one name

$(VISOR): $(B)/hypervisor/cli/main.o $(LIBRARY)
	@echo '  LD      $@'
	$(Q)$(CC) $(CFLAGS_ALL) -o $@ $^ $(LDFLAGS) $(LDLIBS)

# ---- parts with rules of their own ----

include suites/suites.mk
include guests/guests.mk

# ---- tests: one program beside each *_test.c; .ci/check runs these and all others ----

$(filter-out $(CORE_TEST_PROGRAMS),$(TEST_PROGRAMS)): $(B)/%: $(B)/%.o $(LIBRARY)
	@echo '  LD      $@'
	$(Q)$(CC) $(CFLAGS_ALL) -o $@ $^ $(LDFLAGS) -lcmocka -lZydis $(LDLIBS)

$(CORE_TESTS:%.c=$(B)/%.o) $(CORE_PARTS): private CFLAGS_ALL += -I.
$(CORE_TEST_PROGRAMS): $(B)/%: $(B)/%.o $(CORE_PARTS)
	@echo '  LD      $@'
	$(Q)$(CC) $(CFLAGS_ALL) -o $@ $^ $(LDFLAGS) -lcmocka

$(B)/hypervisor/vm/hostile_test $(B)/hypervisor/fuzz/files_test: | $(HOSTILE_GUEST)
$(B)/hypervisor/fuzz/guest_test: | $(FUZZ_GUEST)

unit: $(TEST_PROGRAMS)
	@for test in $(TEST_PROGRAMS); do echo "$$test"; $$test || exit 1; done

check: all $(TEST_PROGRAMS) $(BENCH_GUEST)
	@B=$(B) .ci/check $(ONLY)

# Debian's own kernel, fetched from Debian, booted to a shell; its time beside QEMU's.
check-linux: visor
	@.ci/linux

# Debian's own Xen, with Linux as its first guest and another in a domain that runs on our AMD-V and VT-x.
check-xen: visor
	@.ci/xen

# The tests that throw random input at what reads any, FUZZ times as long as in `make check`.
FUZZ ?= 50
fuzz: $(filter $(B)/hypervisor/fuzz/%,$(TEST_PROGRAMS))
	@for test in $^; do echo "$$test"; FUZZ=$(FUZZ) $$test || exit 1; done

# What takes too long for every commit: ten million random accesses to devices, with the address sanitizer.
check-long:
	@$(MAKE) MODE=asan guests build/asan/hypervisor/fuzz/devices_test build/asan/hypervisor/fuzz/guest_test
	@for test in devices guest; do FUZZ=100 build/asan/hypervisor/fuzz/$${test}_test || exit 1; done

# The software CPU against this host's own processor, for longer than in `make check`.
ORACLE_COUNT ?= 10000000
oracle: visor
	@$(VISOR) oracle --count $(ORACLE_COUNT) $(if $(ORACLE_SEED),--seed $(ORACLE_SEED))

lint: all
	@runner/trapline lint

# ---- the main job ----

conform: all
	@runner/trapline run

# ---- what it costs: never part of the tests, as times depend on the machine ----

$(BENCH_PROGRAMS): $(B)/%: $(B)/%.o $(LIBRARY)
	@echo '  LD      $@'
	$(Q)$(CC) $(CFLAGS_ALL) -o $@ $^ $(LDFLAGS) -lcmocka -lZydis $(LDLIBS)

bench: all $(BENCH_PROGRAMS) $(BENCH_GUEST)
	@runner/bench

# ---- installation: works without root where PREFIX does ----

SHARE := $(DESTDIR)$(PREFIX)/share/trapline
install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(SHARE)/guests $(SHARE)/runner
	install $(VISOR) runner/trapline $(DESTDIR)$(PREFIX)/bin
	install -m644 build/guests/*.elf build/guests/*.bin build/guests/rom/reset.bin $(SHARE)/guests
	install -d $(SHARE)/l1
	install -m644 build/l1/l1.elf build/l1/l1.bin $(SHARE)/l1
	rm -rf $(SHARE)/suites $(SHARE)/results $(SHARE)/runner/traplib
	cp -R suites $(SHARE)/suites
	cp -R runner/traplib $(SHARE)/runner/traplib
	rm -rf $(SHARE)/runner/traplib/__pycache__
	mkdir $(SHARE)/results
	for kept in $(filter-out results/runs,$(wildcard results/*)); do cp -R $$kept $(SHARE)/results; done
	chmod -R u=rwX,go=rX $(SHARE)

format:
	clang-format -i $(SOURCES) $(TESTS) $(BENCHES) $(shell find hypervisor -name '*.h')

clean:
	rm -rf build

-include $(OBJECTS:.o=.d) $(CORE_PARTS:.o=.d) $(TEST_PROGRAMS:=.d) $(BENCH_PROGRAMS:=.d)
