"""Progress on standard error: a bar on a terminal, plain lines elsewhere."""

import os
import shutil
import sys
import time


class Progress:
    """Counts cases. On a terminal, one line that is redrawn; elsewhere a line every few seconds."""

    def __init__(self, total, quiet=False, unit="cases"):
        self.total, self.done, self.bad = total, 0, 0
        self.quiet, self.unit = quiet, unit
        self.terminal = sys.stderr.isatty()
        self.color = self.terminal and "NO_COLOR" not in os.environ
        self.started = time.monotonic()
        self.next = self.started + (0 if self.terminal else 5)

    def add(self, done, bad):
        """Counts @done more cases, @bad of them not as expected."""
        self.done += done
        self.bad += bad
        now = time.monotonic()
        if now >= self.next and not self.quiet:
            self.next = now + (0.1 if self.terminal else 5)
            self._show(now)

    def _words(self, now):
        seconds = max(now - self.started, 1e-3)
        bad = f", {self.bad} not as expected" if self.bad else ""
        return f"{self.done}/{self.total} {self.unit}, {self.done / seconds:,.0f}/s{bad}"

    def _show(self, now):
        if not self.terminal:
            print(self._words(now), file=sys.stderr, flush=True)
            return
        words = self._words(now)
        width = max(10, min(40, shutil.get_terminal_size().columns - len(words) - 6))
        full = width * self.done // max(self.total, 1)
        bar = "█" * full + "░" * (width - full)
        if self.color:
            bar = f"\x1b[{31 if self.bad else 32}m{bar}\x1b[0m"
        print(f"\r\x1b[K{bar} {words}", end="", file=sys.stderr, flush=True)

    def close(self):
        """Leaves the terminal clean, with one last line elsewhere."""
        if self.quiet:
            return
        if self.terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        elif self.done:
            print(self._words(time.monotonic()), file=sys.stderr, flush=True)
