"""One line of what `make bench` prints: samples of competitors, and their medians."""

import statistics
import sys

RATE, TIME = "higher is better", "lower is better"


class Row:
    """One line of the table: samples by competitor, in @unit."""

    def __init__(self, group, name, unit, better, says=""):
        self.group, self.name, self.unit, self.better, self.says = group, name, unit, better, says
        self.samples = {}

    def add(self, competitor, value):
        """One more sample."""
        self.samples.setdefault(competitor, []).append(value)

    def median(self, competitor):
        """The median of a competitor's samples; None without any."""
        values = self.samples.get(competitor)
        return statistics.median(values) if values else None

    def ratio(self, competitor):
        """How many times as fast as @competitor the software CPU is; None where one is missing."""
        own, other = self.median("soft"), self.median(competitor)
        if not own or not other:
            return None
        return own / other if self.better == RATE else other / own

    def record(self):
        """For the JSON file."""
        others = [name for name in self.samples if name != "soft"]
        return {"group": self.group, "name": self.name, "unit": self.unit, "better": self.better, "says": self.says,
                "median": {name: self.median(name) for name in self.samples},
                "ratio": {name: self.ratio(name) for name in others}, "samples": self.samples}


def say(words):
    """Progress."""
    print(f"bench: {words}", file=sys.stderr, flush=True)
