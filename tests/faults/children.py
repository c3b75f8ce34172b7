"""A command of the product in a child process that may be killed, and what it leaves behind, ready to be compared.

Importing torch and the libraries takes longer than the commands themselves, so children are forks of a process that has
imported everything and run nothing. It never imports JAX, beside whose threads a fork may hang: tests start it as a
process of its own.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.system.sealed import CHECKSUMS

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.utime", "os.chmod")
OF_A_RUN = ("created", "timing", "environment", "peak_memory_mb", "sha256", "command")
OF_TRAINING = ("hours", "seconds", "images_per_s", "sha256")


OVER: list[bool] = []  # in a child: its action has ended, what it writes now is the harness's own


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code, or minus the signal; how often it changed a file; its words."""

    code: int
    events: int
    seconds: float
    said: str


class FileEvents:
    """Counts what this process does to files; sends it a signal before the one numbered `last`."""

    def __init__(self, last: int | None, how: int = signal.SIGKILL) -> None:
        self.count, self.last, self.owner, self.how = 0, last, os.getpid(), how
        sys.addaudithook(self._hear)

    def _hear(self, event: str, words: tuple[Any, ...]) -> None:
        if os.getpid() != self.owner or not (
            event in CHANGES or (event == "open" and isinstance(words[2], int) and words[2] & WRITES)
        ):
            return
        self.count += 1
        if self.count == self.last:
            os.kill(os.getpid(), self.how)


def start(
    action: Callable[[], int | None], folder: Path, at_event: int | None = None, how: int = signal.SIGKILL
) -> int:
    """The process id of a fork that does `action` and tells `folder`/said.log and `folder`/events; it is sent `how`
    before the file event numbered `at_event`."""
    folder.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    assert "jax" not in sys.modules, "a fork beside JAX may hang"
    if pid := os.fork():
        return pid
    code = 70
    try:
        out = open(folder / "said.log", "w", buffering=1, encoding="utf-8")  # noqa: SIM115
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
        sys.stdout = sys.stderr = out
        events = FileEvents(at_event, how)
        try:
            code = action() or 0
        except SystemExit as e:
            code = e.code if isinstance(e.code, int) else 0
        OVER.append(True)
        most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        (folder / "events").write_text(str(events.count))
        (folder / "modules").write_text("\n".join(sys.modules))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait(
    pid: int, folder: Path, seconds: float | None = None, limit: float = 300.0, how: int = signal.SIGKILL
) -> Ended:
    """Waits for the end of `pid`, which is sent the signal `how` after `seconds` (None: never; past `limit` it hangs,
    which raises AssertionError)."""
    began = time.monotonic()
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        spent = time.monotonic() - began
        if found:
            break
        if seconds is not None and spent >= seconds and how != signal.SIGKILL:
            with suppress(ProcessLookupError):
                os.kill(pid, how)
            seconds = None
        if (seconds is not None and spent >= seconds) or spent > limit:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            assert spent <= limit, f"{folder}: hangs"
            return Ended(-signal.SIGKILL, 0, spent, _text(folder / "said.log"))
        time.sleep(0.002)
    events = _text(folder / "events")
    return Ended(os.waitstatus_to_exitcode(status), int(events or 0), spent, _text(folder / "said.log"))


def import_what_it_imports(folder: Path) -> None:
    """Imports what the child of `folder` had imported at its end, but JAX, so that the next ones need not."""
    for name in _text(folder / "modules").split():
        if name not in sys.modules and name != "__main__" and not name.startswith("jax"):
            with suppress(Exception):
                importlib.import_module(name)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def refuse_locks() -> None:
    """In this process: a file system that has no flock, as some network disks."""

    def flock(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    fcntl.flock = flock  # type: ignore[assignment]


# ------------------------------------------------------------------------------------------------------- what is kept


def kept(folder: Path) -> dict[str, Any]:
    """Every file below `folder`, by its path: its digest, or for rows and tables what is in them but times, memory and
    the machine. Names with a dot first (locks, what a kill left half-written) and marks of running processes are no
    result."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not any(part.startswith(".") or part == "running" for part in name.split("/")):
            found[name] = _content(path)
        elif path.is_dir() and not any(path.iterdir()) and path.name != "running" and not path.name.startswith("."):
            found[name] = "an empty folder"
    return found


def _content(path: Path) -> Any:
    if path.name == "result.json":
        return _without(json.loads(path.read_text(encoding="utf-8")), OF_A_RUN)
    if path.name in ("run.json", "state.json", CHECKSUMS):
        data = json.loads(path.read_text(encoding="utf-8"))
        data["files"] = {k: v for k, v in data.get("files", {}).items() if k not in ("run.json", "metrics.jsonl")}
        if data.get("exported"):
            del data["exported"]["hours"]
        return _without(data, OF_TRAINING)
    if path.name == "metrics.jsonl":
        lines = path.read_text(encoding="utf-8").splitlines()
        return [_without(json.loads(line), OF_TRAINING) for line in lines]
    if path.name == "results.csv":
        return pd.read_csv(path).drop(columns=["total_s", "created"]).to_dict("list")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _without(data: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return json.dumps({k: v for k, v in data.items() if k not in names}, sort_keys=True)


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The paths that are in one alone, or are not the same in both."""
    return sorted(name for name in {*one, *other} if repr(one.get(name)) != repr(other.get(name)))
