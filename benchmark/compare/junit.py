"""JUnit XML, which every CI system shows: one test case for each unit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

from benchmark.system.escaping import visible

NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Case:
    """One test case; `message` explains a failure, error or skip, and is shown as output of a pass."""

    suite: str
    name: str
    outcome: Literal["passed", "failed", "error", "skipped"]
    message: str = ""
    seconds: float = 0.0


def junit_xml(title: str, cases: Sequence[Case]) -> str:
    """The report as text; characters that XML cannot hold are dropped."""
    root = ElementTree.Element("testsuites", _counts(title, cases))
    for suite in dict.fromkeys(c.suite for c in cases):
        mine = [c for c in cases if c.suite == suite]
        node = ElementTree.SubElement(root, "testsuite", _counts(suite, mine))
        for case in mine:
            _add(node, case)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _counts(name: str, cases: Sequence[Case]) -> dict[str, str]:
    def count(outcome: str) -> str:
        return str(sum(c.outcome == outcome for c in cases))

    totals = {"failures": count("failed"), "errors": count("error"), "skipped": count("skipped")}
    return {"name": _clean(name), "tests": str(len(cases)), **totals, "time": f"{sum(c.seconds for c in cases):.3f}"}


def _add(suite: ElementTree.Element, case: Case) -> None:
    facts = {"classname": _clean(case.suite), "name": _clean(case.name), "time": f"{case.seconds:.3f}"}
    node = ElementTree.SubElement(suite, "testcase", facts)
    tag = {"failed": "failure", "error": "error", "skipped": "skipped", "passed": "system-out"}[case.outcome]
    if case.outcome == "passed":
        if case.message:
            ElementTree.SubElement(node, tag).text = _clean(case.message)
        return
    ElementTree.SubElement(node, tag, {"message": _clean(case.message)})


def _clean(text: str) -> str:
    return NOT_XML.sub("", visible(text))
