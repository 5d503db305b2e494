"""JUnit XML of a run, for CI servers."""

import re
import xml.etree.ElementTree as ElementTree

from . import summary, verdicts

NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def text(value):
    """What XML 1.0 can carry of a text that a guest may have written."""
    return NOT_XML.sub(lambda match: f"\\x{ord(match[0]):02x}", value)


def write(run, path):
    """Writes the run as one testsuite for each target and suite."""
    root = ElementTree.Element("testsuites", name="trapline")
    groups = {}
    for (target, case_id), end in run.ends.items():
        groups.setdefault((target, case_id.split(".")[0]), []).append((case_id, end))
    for (target, suite), ends in groups.items():
        count = verdicts.counts(end["verdict"] for _, end in ends)
        errors = sum(count[v] for v in ("ERROR", "TIMEOUT", "CRASH"))
        node = ElementTree.SubElement(
            root, "testsuite", name=f"{suite} on {target}", tests=str(len(ends)), failures=str(count["FAIL"]),
            errors=str(errors), skipped=str(count["SKIP"] + count["NOTSUP"]),
            time=f"{sum(end.get('ns', 0) for _, end in ends) / 1e9:.6f}")
        for case_id, end in ends:
            _case(node, run, target, case_id, end)
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _case(parent, run, target, case_id, end):
    suite, _, name = case_id.partition(".")
    node = ElementTree.SubElement(parent, "testcase", classname=text(f"{suite}.{target}"), name=text(name),
                                  time=f"{end.get('ns', 0) / 1e9:.6f}")
    verdict = end["verdict"]
    if verdict in ("SKIP", "NOTSUP"):
        ElementTree.SubElement(node, "skipped", message=text(end["got"] or verdict))
    elif not end["expected"]:
        tag = "failure" if verdict == "FAIL" else "error"
        failure = ElementTree.SubElement(node, tag, type=verdict, message=text(end.get("why") or end["got"]))
        failure.text = text("\n".join(summary.failure_lines(run, target, case_id, end)))
