"""What a conformance check says, and how a measurement that raises becomes a failed finding instead of a crash."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmark.errors import BenchError, staying


@dataclass(frozen=True)
class Finding:
    """One thing that was checked: what was measured, and for a failure what to do about it."""

    name: str
    ok: bool
    value: str = ""
    detail: str = ""


@dataclass
class CheckReport:
    """Every finding about one encoder, in the order they were made."""

    model: str
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return all(finding.ok for finding in self.findings)


Check = Callable[[], Finding | Sequence[Finding]]


def attempt(name: str, check: Check) -> list[Finding]:
    """The check's findings; an error of the encoder is a failed finding named `name`."""
    try:
        with staying():
            found = check()
    except BenchError as error:
        return [Finding(name, False, "error", str(error))]
    except Exception as error:  # whatever a user's encoder raises is a finding about it
        line = (str(error).splitlines() or [""])[0]
        return [Finding(name, False, "error", f"{type(error).__name__}: {line}")]
    return [found] if isinstance(found, Finding) else list(found)


def passed(name: str, value: str = "") -> Finding:
    """A finding that is as it should be."""
    return Finding(name, True, value)


def failed(name: str, value: str, detail: str) -> Finding:
    """A finding that is not; `detail` says why, and what to do."""
    return Finding(name, False, value, detail)
