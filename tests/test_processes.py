"""Locks where a file system gives none, and the parts of other systems: what Windows lacks is asked of one file."""

from __future__ import annotations

import ast
import errno
import fcntl
import importlib.util
import platform
import re
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest

from benchmark.features.store import FeatureStore
from benchmark.system import processes
from benchmark.system.files import only_writer
from benchmark.watch.history import only_watcher

ROOT = Path(__file__).parents[1]
UNIX = {"fcntl", "resource", "pwd", "grp", "termios"}
CALLS = {"pread", "pwrite", "fork", "killpg", "getuid", "geteuid", "statvfs", "mkfifo"}


def test_a_file_system_without_locks_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    array = FeatureStore(tmp_path, "float32").array({"model": "m"}, 4)
    array.write(0, np.ones((4, 2), np.float32))
    assert array.missing() == [] and array[0].tolist() == [1, 1]
    with only_writer(tmp_path / "row"), only_watcher(tmp_path / "watch"), processes.locked(tmp_path / "l") as alone:
        assert not alone


def test_a_held_lock_is_not_taken_twice(tmp_path: Path) -> None:
    with processes.locked(tmp_path / "l") as alone, pytest.raises(BlockingIOError):  # noqa: PT012
        assert alone
        with processes.locked(tmp_path / "l", wait=False):
            pass
    with processes.locked(tmp_path / "l", wait=False) as alone:
        assert alone


def test_only_one_file_asks_for_what_windows_lacks() -> None:
    found = []
    for folder in ("benchmark", "adapters", "tasks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                used = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os"
                if UNIX & set(names) or (used and node.attr in CALLS):
                    found.append(path.relative_to(ROOT).as_posix())
    assert set(found) == {"benchmark/system/processes.py"}


def test_locks_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    def locking(handle: int, how: int, count: int) -> None:
        if taken and how == 2:
            raise OSError(errno.EACCES, "Permission denied")
        taken.append(handle)

    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(locking=locking, LK_LOCK=1, LK_NBLCK=2))
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr(sys, "platform", "win32")
    spec = importlib.util.spec_from_file_location(
        "processes_on_windows", ROOT / "benchmark" / "system" / "processes.py"
    )
    assert spec and spec.loader
    windows = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(windows)
    with windows.locked(tmp_path) as alone, pytest.raises(BlockingIOError):  # noqa: PT012
        assert alone and (tmp_path / ".lock").is_file()
        with windows.locked(tmp_path, wait=False):
            pass
    assert windows.start_method() == "spawn" and windows.peak_memory_mb() == 0.0


@pytest.mark.parametrize(("platform", "loaded", "method"), [
    ("linux", "numpy", "fork"), ("linux", "jax", "spawn"), ("darwin", "numpy", "spawn"), ("win32", "numpy", "spawn"),
])  # fmt: skip
def test_workers_are_forked_where_that_is_safe(
    monkeypatch: pytest.MonkeyPatch, platform: str, loaded: str, method: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    monkeypatch.setitem(sys.modules, loaded, types.ModuleType(loaded))
    assert processes.start_method() == method


def test_no_loader_starts_its_workers_the_way_that_python_happens_to_choose():
    """Where JAX is loaded a fork may hang for ever: every loader with workers asks `start_method`, or spawns."""
    ways = []
    for path in (p for folder in ("benchmark", "adapters", "tasks") for p in (ROOT / folder).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"os\.fork\(|get_context\((?!\"spawn\")|multiprocessing\.(Process|Pool)\(", text), path
        for node in ast.walk(ast.parse(text)):
            words: dict[str, str] = {}
            if isinstance(node, ast.Call):
                words = {k.arg: ast.unparse(k.value) for k in node.keywords if k.arg}
            elif isinstance(node, ast.Dict):
                words = {ast.unparse(k).strip("'"): ast.unparse(v) for k, v in zip(node.keys, node.values) if k}
            if "num_workers" in words:
                ways.append(words["multiprocessing_context"])
    assert len(ways) >= 4 and all(way.startswith(("start_method() if", "'spawn' if")) for way in ways)


def test_each_model_of_a_command_has_its_own_peak():
    """A large block that was let go of is not in the peak of what comes after it, a mark of the process's life is."""
    code = (
        "import numpy as np; from benchmark.system.processes import PeakMemory\n"
        "first = PeakMemory(); block = np.ones(60_000_000); large = first.mb(); del block\n"
        "second = PeakMemory(); small = np.ones(6_000_000); print(large, second.mb(), second.method)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    large, small, method = done.stdout.split(maxsplit=2)
    assert float(large) > 457
    if not method.startswith("ru_maxrss"):
        assert 45 < float(small) < float(large) - 350


def test_without_a_mark_that_can_be_set_back_the_size_is_sampled(monkeypatch):
    monkeypatch.setattr(processes, "_forget_peak", lambda: False)
    sizes = iter([100.0, 300.0])
    monkeypatch.setattr(processes, "_resident_mb", lambda: next(sizes, 200.0))
    peak = processes.PeakMemory()
    for _ in range(200):
        if peak._seen == 300.0:
            break
        time.sleep(0.01)
    assert peak.mb() == 300.0 and "50 times a second" in peak.method
    monkeypatch.setattr(processes, "_resident_mb", lambda: None)
    assert processes.PeakMemory().method == "ru_maxrss of the whole process so far"


def test_arrays_that_come_and_go_cost_no_pages_once_memory_is_kept():
    if platform.libc_ver()[0] != "glibc":
        return  # elsewhere nothing is promised
    code = """
import resource
import numpy as np
from benchmark.system.processes import keep_memory
keep_memory()
def use(): return sum(np.ones(n)[0] for n in (40_000, 250_000, 1_000_000))
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20): use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(said) < 100  # 20,000 and more without
