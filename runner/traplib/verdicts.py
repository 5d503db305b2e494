"""Verdicts, and which of them are as expected."""

VERDICTS = ("PASS", "FAIL", "SKIP", "NOTSUP", "ERROR", "TIMEOUT", "CRASH")
EXPECTED = frozenset(("PASS", "SKIP", "NOTSUP"))
BAD = frozenset(VERDICTS) - EXPECTED


def counts(verdicts):
    """{verdict: how many}, all verdicts named, in their order."""
    result = dict.fromkeys(VERDICTS, 0)
    for verdict in verdicts:
        result[verdict] += 1
    return result


def words(count):
    """'12 passed, 1 failed, …' with only what occurred behind the first two."""
    names = {"PASS": "passed", "FAIL": "failed", "SKIP": "skipped", "NOTSUP": "not supported",
             "ERROR": "errors", "TIMEOUT": "timed out", "CRASH": "crashed"}
    return ", ".join(f"{count[v]} {names[v]}" for v in VERDICTS if count[v] or v in ("PASS", "FAIL"))
