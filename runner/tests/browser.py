"""The HTML report in a real browser: headless Chromium, driven through chromedriver's WebDriver port.

Not discovered by unittest, as it needs both programs: `.ci/check` runs it where they are.
"""

import json
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request
from pathlib import Path

RUNNER = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(RUNNER))
sys.path.insert(0, str(RUNNER / "tests"))

from test_runner import Bench  # noqa: E402

PORT = 19515
CHROMIUM = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync"]
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Driver:
    """A WebDriver session."""

    def __init__(self, width, height, dark=False):
        self.profile = tempfile.TemporaryDirectory(prefix="trapline-chromium-")
        self.process = subprocess.Popen(["chromedriver", f"--port={PORT}"], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        arguments = CHROMIUM + [f"--window-size={width},{height}", f"--user-data-dir={self.profile.name}"]
        if dark:
            arguments.append("--force-dark-mode")
        options = {"args": arguments}
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options,
                                                   "goog:loggingPrefs": {"browser": "ALL"}}}}
        self.session = ""
        self.session = "/session/" + self._retry("POST", "/session", wanted)["sessionId"]

    def _retry(self, *words):
        for _ in range(50):
            try:
                return self.call(*words)
            except OSError:
                time.sleep(0.2)
        raise RuntimeError("chromedriver does not answer")

    def call(self, method, path, body=None):
        """One WebDriver command; its value."""
        data = json.dumps(body if body is not None else {}).encode() if method == "POST" else None
        request = urllib.request.Request(f"http://127.0.0.1:{PORT}{self.session}{path}", data, method=method,
                                         headers={"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def script(self, text):
        """What a script in the page returns."""
        return self.call("POST", "/execute/sync", {"script": text, "args": []})

    def find(self, selector):
        """The element id of a CSS selector."""
        return self.call("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]

    def close(self):
        try:
            self.call("DELETE", "")
        finally:
            self.process.terminate()
            self.process.wait()
            self.profile.cleanup()


class Report(Bench):
    def page(self):
        rows = [f"{insn}.{mode}.cpl{cpl} {'FAIL' if insn == 'hlt' and cpl == 3 else 'PASS'}"
                for insn in ("sgdt", "hlt", "cpuid") for mode in ("prot32", "long") for cpl in range(4)]
        self.guest("\n".join(rows))
        self.trapline("run", "--target", "soft:amd", "-j1", status=1)
        return (self.last().path.parent / "report.html").as_uri()

    def open(self, width, height, **more):
        driver = Driver(width, height, **more)
        self.addCleanup(driver.close)
        driver.call("POST", "/url", {"url": self.page()})
        return driver

    def shown(self, driver, selector):
        return driver.script(f"return [...document.querySelectorAll({selector!r})].filter(e => e.offsetParent).length")

    def no_errors(self, driver):
        log = driver.call("POST", "/se/log", {"type": "browser"})
        self.assertEqual([entry for entry in log if entry["level"] in ("SEVERE", "WARNING")], [])

    def test_filter(self):
        driver = self.open(1366, 900)
        self.assertEqual(self.shown(driver, "article.f"), 2)
        self.assertEqual(self.shown(driver, ".map tbody tr"), 4)
        words = driver.find("#words")
        driver.call("POST", f"/element/{words}/value", {"text": "hlt long"})
        self.assertEqual(self.shown(driver, "article.f"), 1)
        self.assertEqual(self.shown(driver, ".map tbody tr"), 1)
        driver.call("POST", f"/element/{words}/clear")
        driver.script("document.getElementById('words').dispatchEvent(new Event('input'))")
        self.assertEqual(self.shown(driver, ".map tbody tr"), 4)
        driver.call("POST", f"/element/{driver.find('#bad')}/click")
        self.assertEqual(self.shown(driver, ".map tbody tr"), 1)
        self.no_errors(driver)

    def test_disagreement(self):
        self.guest("a.long.cpl0 PASS\nb.long.cpl0 PASS/FAIL\nc.long.cpl0 FAIL")
        self.trapline("run", "-j1", status=1)
        driver = Driver(1366, 900)
        self.addCleanup(driver.close)
        driver.call("POST", "/url", {"url": (self.last().path.parent / "report.html").as_uri()})
        self.assertEqual(self.shown(driver, ".sides tbody tr"), 1)
        self.assertEqual(self.shown(driver, ".map tbody tr"), 4)
        driver.call("POST", f"/element/{driver.find('#odd')}/click")
        self.assertEqual(self.shown(driver, ".sides tbody tr"), 1)
        self.assertEqual(self.shown(driver, ".map tbody tr"), 1)
        words = driver.find("#words")
        driver.call("POST", f"/element/{words}/value", {"text": "nosuch"})
        self.assertEqual(self.shown(driver, ".sides tbody tr"), 0)
        self.no_errors(driver)

    def test_phone_does_not_scroll_sideways(self):
        driver = self.open(390, 800)
        self.assertLessEqual(driver.script("return document.documentElement.scrollWidth"),
                             driver.script("return document.documentElement.clientWidth"))
        self.no_errors(driver)

    def test_hostile_output_stays_text(self):
        driver = self.open(1366, 900)
        self.assertEqual(driver.script("return document.scripts.length"), 1)
        self.assertIn("<script>alert(1)</script>", driver.script("return document.querySelector('article.f').innerText"))
        self.no_errors(driver)


if __name__ == "__main__":
    unittest.main()
