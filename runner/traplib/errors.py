"""The ways in which a command can end, as documented for users."""

EXIT_EXPECTED = 0    # everything was as expected
EXIT_UNEXPECTED = 1  # something was not
EXIT_USAGE = 2       # a wrong command line or file
EXIT_HARNESS = 3     # the harness failed, or the run is incomplete
EXIT_NOTHING = 5     # nothing was selected


class TraplineError(Exception):
    """Ends the command with one line on standard error."""

    status = EXIT_HARNESS


class UsageError(TraplineError):
    """A wrong command line, or a file that cannot be used: names the thing and the reason."""

    status = EXIT_USAGE


class NothingSelected(TraplineError):
    """No case matches the selection."""

    status = EXIT_NOTHING


class HarnessError(TraplineError):
    """The harness itself failed: a full disk, a hypervisor that cannot be started."""
