"""Bochs, started from a small ROM that enters the guest as a multiboot loader would."""

DEFAULT_MODEL = "corei7_skylake_x"


def version():
    """What Bochs says of itself; None where it is not here."""
    return None


def missing():
    """Why a guest cannot be started in it."""
    return "not yet"


def prepare(folder, image, words, model):
    """Writes the files of one start to @folder; the command."""
    raise NotImplementedError


def ending(folder):
    """How it ended, by its log."""
    return "exit"
