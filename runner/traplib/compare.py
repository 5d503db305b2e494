"""Two runs side by side, or two targets: what regressed, was fixed, is new, gone, flaky or different.

A side is RUN, or RUN@TARGET: then that target alone, so that two targets can be held against each other.
"""

from . import results
from .errors import UsageError

SHOWN = 50  # lines of each kind
KINDS = (("regressed", "not as expected any more"), ("fixed", "as expected again"), ("new", "only in the second"),
         ("gone", "only in the first"), ("flaky", "with changing outcomes"),
         ("different", "another outcome, though no more and no less expected"))


class Side:
    """One side: its run, and its ends by key."""

    def __init__(self, word, folder):
        name, at, target = word.partition("@")
        self.run = results.Run.read(results.find(name or "last", folder))
        self.targets = [target] if at else list(dict.fromkeys(target for target, _ in self.run.ends))
        if at and target not in self.run.header["targets"]:
            raise UsageError(f"{word}: there is no such target in it; it has {', '.join(self.run.header['targets'])}")
        self.named = bool(at)

    def ends(self, alone):
        """{key: end}: the key is the id where one target is looked at, else (target, id)."""
        return {case_id if alone else (target, case_id): end for (target, case_id), end in self.run.ends.items()
                if target in self.targets}

    def flaky(self, alone):
        """Keys of cases whose attempts differ."""
        return {case_id if alone else (target, case_id) for target, case_id in self.run.flaky()
                if target in self.targets}


class Comparison:
    """Both sides; found: {kind: [key]}."""

    def __init__(self, word_a, word_b, folder):
        self.a, self.b = Side(word_a, folder), Side(word_b, folder)
        alone = len(self.a.targets) == 1 and len(self.b.targets) == 1
        if (self.a.named or self.b.named) and not alone:
            raise UsageError(f"{word_a} {word_b}: name a target on both sides, as RUN@TARGET")
        self.first, self.second = self.a.ends(alone), self.b.ends(alone)
        self.found = {kind: [] for kind, _ in KINDS}
        flaky = self.a.flaky(alone) | self.b.flaky(alone)
        for key in list(self.first) + [key for key in self.second if key not in self.first]:
            kind = "flaky" if key in flaky else self._kind(self.first.get(key), self.second.get(key))
            if kind:
                self.found[kind].append(key)

    @staticmethod
    def _kind(before, after):
        if not before or not after:
            return "gone" if before else "new"
        if before["expected"] != after["expected"]:
            return "fixed" if after["expected"] else "regressed"
        return "different" if (before["verdict"], before["got"]) != (after["verdict"], after["got"]) else None

    def environment(self):
        """What else differs between the two: [(what, first, second)]."""
        rows = [("commit", self.a.run.header["commit"], self.b.run.header["commit"])]
        rows += [(f"host {key}", self.a.run.header["host"].get(key), self.b.run.header["host"].get(key))
                 for key in self.a.run.header["host"]]
        for one, other in zip(self.a.targets, self.b.targets):
            first, second = self.a.run.targets.get(one, {}), self.b.run.targets.get(other, {})
            rows.append(("target", one, other))
            rows += [(f"{one} {key}", first.get(key), second.get(key)) for key in
                     ("visor", "program", "digest", "vendor", "missing")]
            rows += cpuid_rows(one, first.get("cpuid") or [], second.get("cpuid") or [])
        return [row for row in rows if row[1] != row[2]]

    def bad(self):
        """Whether the second is worse."""
        return bool(self.found["regressed"]) or any(not self.second[key]["expected"] for key in self.found["new"])

    def lines(self):
        """All of it, a line each."""
        out = [f"{what}: {one or '-'} -> {other or '-'}" for what, one, other in self.environment()]
        for kind, words in KINDS:
            keys = self.found[kind]
            if keys:
                out += ["", f"{kind} ({len(keys)}): {words}"]
                out += [f"  {self._name(key)}: {told(self.first.get(key))} -> {told(self.second.get(key))}"
                        for key in keys[:SHOWN]]
            if len(keys) > SHOWN:
                out.append(f"  and {len(keys) - SHOWN} more")
        counts = ", ".join(f"{len(self.found[kind])} {kind}" for kind, _ in KINDS)
        same = len(self.first.keys() & self.second.keys()) - sum(
            len(self.found[kind]) for kind in ("regressed", "fixed", "different"))
        return out + ["", f"{counts}; {same} the same"]

    @staticmethod
    def _name(key):
        return key if isinstance(key, str) else f"{key[1]} on {key[0]}"


def told(end):
    """What a case did, in a few words."""
    return "-" if not end else f"{end['verdict']} {end['got'] or end.get('why', '')}".strip()


def cpuid_rows(name, first, second):
    """Leaves of CPUID that differ."""
    a, b = ({(line[0], line[1]): tuple(line[2:]) for line in lines} for lines in (first, second))
    return [(f"{name} cpuid.{leaf:x}.{sub:x}", words(a.get((leaf, sub))), words(b.get((leaf, sub))))
            for leaf, sub in sorted(a.keys() | b.keys())]


def words(registers):
    """Four registers in hex."""
    return " ".join(f"{value:08x}" for value in registers) if registers else ""


def merge(paths, parent):
    """Writes the runs in @paths as one; its Run. Runs of different guests cannot be merged."""
    runs = [results.Run.read(path) for path in paths]
    digests = {}
    if len({"mutants" in run.header for run in runs}) > 1:
        raise UsageError("a run of mutants and one of cases cannot be merged")
    for run in runs:
        for record in run.targets.values():
            digest = record.get("digest")
            if digest and digests.setdefault(record.get("suite"), digest) != digest:
                raise UsageError(f"{run.path}: another build of {record.get('suite')} than in the runs before")
    header = dict(runs[0].header)
    folder = results.new_folder(parent)
    header.update(run=folder.name, shard=None, merged=[run.header["run"] for run in runs],
                  targets=list(dict.fromkeys(name for run in runs for name in run.header["targets"])),
                  selected=sum(run.header["selected"] for run in runs), reproduce={})
    for run in runs:
        header["reproduce"].update(run.header.get("reproduce", {}))
    writer = results.Writer(folder)
    writer.record(**header)
    seen = set()
    for run in runs:
        for suite, cases in run.suites.items():
            if suite not in seen:
                for record in cases.values():
                    writer.record(**record)
        if not seen & set(run.suites):
            for record in [*run.cells, *run.clauses.values()]:
                writer.record(**record)
        seen |= set(run.suites)
        for record in run.targets.values():
            writer.record(**record)
        for ends in run.attempts.values():
            for record in ends:
                writer.record(**record)
    writer.record(t="done", complete=all(run.done for run in runs),
                  why="" if all(run.done for run in runs) else "one of the merged runs is incomplete")
    writer.close()
    return writer.run
