"""Which cases: by suite, id, prefix or pattern."""

import fnmatch
import re

from .errors import UsageError


class Selection:
    """What the words of a command line select.

    A word is a suite (`sensitive`), an id or the beginning of one up to a dot
    (`sensitive.sgdt`), or a pattern with * ? [ ] (`*.cpl3.umip`). A word that begins
    with `!` takes away. `@FILE` reads words from a file, one a line. Without a word
    that adds, everything is selected.
    """

    def __init__(self, words):
        self.add, self.drop = [], []
        for word in self._read(words):
            target = self.drop if word.startswith("!") else self.add
            target.append((word, self._pattern(word.lstrip("!"))))

    @staticmethod
    def _read(words):
        for word in words:
            if not word.startswith("@"):
                yield word
                continue
            try:
                with open(word[1:], encoding="utf-8") as file:
                    for line in file:
                        line = line.strip()
                        if line and not line.startswith("#"):
                            yield line
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"{word[1:]}: {getattr(error, 'strerror', None) or error}") from error

    @staticmethod
    def _pattern(word):
        if any(c in word for c in "*?["):
            return re.compile(fnmatch.translate(word))
        return re.compile(re.escape(word) + r"(\..*)?\Z", re.DOTALL)

    def matches(self, case_id):
        """Whether the selection takes this id."""
        wanted = not self.add or any(p.match(case_id) for _, p in self.add)
        return wanted and not any(p.match(case_id) for _, p in self.drop)

    def unused(self, ids):
        """Words that match none of these ids: most likely mistyped."""
        return [word for word, pattern in self.add if not any(pattern.match(i) for i in ids)]

    def suites(self, names):
        """The suites that the words can concern, so that the others need not be read."""
        if not self.add:
            return list(names)
        literal = [word.split(".")[0] for word, _ in self.add]
        if any(c in word for word in literal for c in "*?["):
            return list(names)
        return [name for name in names if name in literal]


def shard(items, text):
    """The items of shard I of N, given as "I/N": every Nth, so that shards take about as long."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"--shard {text}: expected I/N with 1 <= I <= N")
    return items[int(match[1]) - 1::int(match[2])]
