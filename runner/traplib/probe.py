"""Asks a program what it is, and says why it cannot be used."""

import functools
import os
import re
import subprocess

PROBE = float(os.environ.get("TRAPLINE_PROBE_SECONDS", "30"))  # for a machine to say its version


@functools.cache
def ask(*command):
    """(what a command prints on both outputs, "") or ("", why it said nothing); (None, "") where it is not here."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                              stdin=subprocess.DEVNULL, check=False, timeout=PROBE)
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        return "", error.strerror
    except subprocess.TimeoutExpired:
        return "", f"said nothing for {PROBE:g} s"
    if done.returncode < 0:
        return "", f"died (signal {-done.returncode})"
    return done.stdout, ""


def unusable(program, package, told, pattern, oldest):
    """Why a program cannot be used, by what ask() was @told: not here, silent, too old. Empty where it can."""
    text, wrong = told
    if text is None:
        return f"{program} is not installed (Debian: {package})"
    if wrong:
        return f"{program} {wrong} when asked for its version"
    match = re.search(pattern, text)
    if match and (int(match[1]), int(match[2])) < oldest:
        return f"{match[0]} is too old: {'.'.join(map(str, oldest))} is the oldest that can be used"
    return ""
