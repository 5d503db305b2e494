"""Says which cases with few patterns, for people to read and for Selection to match: no more than those, no less."""

import fnmatch
import re

ID = re.compile(r"(?P<suite>\w+)\.(?P<insn>\w+)(?P<form>(?:\.\w+)*?)\.(?P<mode>real|vm86|prot16|prot32|compat|long)"
                r"\.cpl(?P<cpl>\d)(?P<rest>(?:\.\w+)*)\Z")


def candidates(case_id):
    """Patterns that match an id: those about its instruction, the widest first, then those about all. The first of
    several that are as good is taken, so an instruction is named unless more than one does it."""
    match = ID.match(case_id)
    if not match:
        yield case_id
        return
    suite, insn, form, mode, cpl, rest = match.groups()
    one, this = f"{suite}.{insn}.*", f"{suite}.{insn}{form}"
    levels = [f"cpl?{rest}"] + ([] if mode in ("real", "vm86") else
                                [f"cpl[123]{rest}", f"cpl{cpl}{rest}"] if cpl != "0" else [f"cpl{cpl}{rest}"])
    yield f"{suite}.{insn}"
    for level in levels:
        yield f"{one}.{level}"
        yield f"{this}.*.{level}"
    for level in levels:
        yield f"{one}.{mode}.{level}"
        yield f"{this}.{mode}.{level}"
    yield f"{this}.{mode}.cpl[{cpl}]{rest}"  # not a word alone, which takes longer ids as well
    if rest:
        for level in levels:
            yield f"{suite}.*.{level}"
            yield f"{suite}.*.{mode}.{level}"


class Matcher:
    """All ids, and which of them a pattern matches, kept."""

    def __init__(self, all_ids):
        self.all_ids, self.known = list(all_ids), {}

    def __call__(self, pattern):
        if pattern not in self.known:
            if any(c in pattern for c in "*?["):
                expression = re.compile(fnmatch.translate(pattern))
                self.known[pattern] = {i for i in self.all_ids if expression.match(i)}
            else:
                self.known[pattern] = {i for i in self.all_ids if i == pattern or i.startswith(pattern + ".")}
        return self.known[pattern]


def cover(wanted, neutral, matcher):
    """Patterns that match all of @wanted and beyond it only ids of @neutral, about as few as there can be."""
    wanted, allowed, found = set(wanted), set(wanted) | set(neutral), []
    tried, left = {}, set(wanted)
    for case_id in sorted(wanted):
        if case_id not in left:
            continue
        best = None
        for pattern in candidates(case_id):
            if pattern not in tried:
                tried[pattern] = matcher(pattern) <= allowed
            if tried[pattern] and case_id in matcher(pattern) and (best is None or len(matcher(pattern) & left) > len(matcher(best) & left)):
                best = pattern
        best = best or case_id
        found.append(best)
        left -= matcher(best)
    return drop_needless(found, wanted, matcher)


def drop_needless(found, wanted, matcher):
    """Without the patterns whose cases others have as well."""
    kept = list(found)
    for pattern in sorted(found, key=lambda one: len(matcher(one))):
        others = set().union(*(matcher(one) for one in kept if one != pattern))
        if matcher(pattern) & wanted <= others:
            kept.remove(pattern)
    return kept
