# Suites: tables that a host program expands into cases, once, when a guest is built.
#
# build/suites/NAME.c is the case table, build/suites/NAME.txt the text of the section.

SUITES := sensitive interrupts paging svm vmx migration
SUITE_FLAGS := -std=gnu17 $(WARNINGS) -O1 -g -Ihypervisor -Isuites -MMD -MP
EXPAND_SOURCES := expand given says cell encode emit inventory tables

build/suites/%.o: suites/%.c | $(DEPS)
	@mkdir -p $(@D)
	@echo '  CC      $@'
	$(Q)$(CC) $(SUITE_FLAGS) -c -o $@ $<

define expand_rule
build/host/expand-$(1): $(patsubst %.c,build/%.o,$(sort $(wildcard suites/$(1)/*.c))) \
		$(EXPAND_SOURCES:%=build/suites/%.o)
	@mkdir -p $$(@D)
	@echo '  LD      $$@'
	$(Q)$$(CC) -o $$@ $$^
endef
$(foreach suite,$(SUITES),$(eval $(call expand_rule,$(suite))))

build/suites/%.c: build/host/expand-%
	@echo '  EXPAND  $@'
	$(Q)$< --table $@

build/suites/%.txt: build/host/expand-%
	@echo '  EXPAND  $@'
	$(Q)$< --section $@

.PHONY: suites lint-suites
.PRECIOUS: build/suites/%.o build/host/expand-% build/suites/%.c build/suites/%.txt
suites: $(SUITES:%=build/suites/%.c) $(SUITES:%=build/suites/%.txt)
lint-suites: $(SUITES:%=build/host/expand-%)
	@for suite in $^; do $$suite --lint || exit 1; done

-include $(wildcard build/suites/*.d build/suites/*/*.d)
