# Guests: bare-metal ELF64 files, one a suite.
.PHONY: guests
guests:
