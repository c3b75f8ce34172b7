"""Changed bytes in every kind of file that comes from outside: one line of BenchError, or the file is read.

Anything else is a finding: another exception, more than two lines, a hang, memory that jumps, a process that ends.
With atheris (`pip install atheris`) libFuzzer leads the changes by the coverage of our packages; without it they are
drawn blindly from the same mutator. Each reader has a child process of its own.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

HANG_S = 60.0
JUMP_MB = 700.0
ROOM = 6 << 30  # bytes of address space beyond what the imports have taken


def guided() -> bool:
    """Whether atheris is here; it has to see our packages while they are imported."""
    try:
        import atheris
    except ImportError:
        return False
    with atheris.instrument_imports(include=["benchmark", "tasks", "adapters"]):
        import readers  # noqa: F401
    return True


class Trials:
    """Tries changed files on one reader, in its own folder; counts, and notes what it finds."""

    def __init__(self, name: str, place: Path, budget: float) -> None:
        from readers import READERS

        self.reader, self.place, self.budget = READERS[name], place, budget
        self.root = place / "valid"
        self.files = [p.relative_to(self.root) for p in self.reader.make(self.root)]
        self.seeds = [(self.root / f).read_bytes() for f in self.files]
        self.inputs, self.said = 0, set[str]()
        self.began = time.process_time()

    def input_of(self, data: bytes) -> tuple[Path, bytes]:
        """The file that a fuzzer's bytes are for (the first byte says which), and its content."""
        return self.files[data[0] % len(self.files) if data else 0], data[1:]

    def try_one(self, data: bytes) -> None:
        """Reads the folder with one file replaced. Ends the process when the budget is used up."""
        from benchmark.errors import BenchError
        from benchmark.system import sealed

        name, content = self.input_of(data)
        (self.place / "now").write_bytes(data)
        folder = self.place / f"f{self.inputs % 2}"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.root, folder, copy_function=shutil.copyfile)
        (folder / name).write_bytes(content)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        sealed._said.clear()
        try:
            self.reader.read(folder)
        except BenchError as e:
            if len(str(e).splitlines()) > 1:
                self.find(f"more than one line: {str(e).splitlines()[0][:80]}", data)
        except BaseException as e:
            at = [f for f in traceback.extract_tb(e.__traceback__) if "/site-packages/" not in f.filename]
            where = f"{Path(at[-1].filename).name}:{at[-1].lineno}" if at else "?"
            self.find(f"{type(e).__name__} at {where}: {str(e)[:120]}", data)
        jump = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
        if jump > JUMP_MB:
            self.find(f"memory grew by {jump:.0f} MiB", data)
        self.inputs += 1
        spent = time.process_time() - self.began
        if self.inputs % 20 == 0 or spent > self.budget:
            (self.place / "inputs").write_text(f"{self.inputs} {spent}")
        if spent > self.budget:
            os._exit(0)

    def find(self, what: str, data: bytes) -> None:
        """Notes a finding, once for each place."""
        key = what.split(": ")[0]
        if key not in self.said:
            self.said.add(key)
            with open(self.place / "found", "a", encoding="utf-8") as f:
                f.write(json.dumps([str(self.input_of(data)[0]), what]) + "\n")
            (self.place / f"input-{len(self.said)}").write_bytes(data)


def _child(name: str, place: Path, budget: float, seed: int, led: bool, threshold: int | None = None) -> None:
    """Tries until the budget is used up, or `threshold` inputs."""
    from mutations import mutate
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = 4_000_000  # twice as many are read: a jump of memory is then no picture that is large
    os.environ["BENCH_CACHE"] = str(place / "cache")
    quiet = os.open(place / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    trials = Trials(name, place, budget)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, taken + ROOM))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    starts = [bytes([i]) + s for i, s in enumerate(trials.seeds[:256])]
    for start in starts:
        trials.try_one(start)
    draw = random.Random(f"{seed} {name}")

    def change(data: bytes, most: int, number: int) -> bytes:
        own = random.Random(number)
        if not data or own.random() < 0.3:
            data = own.choice(starts)
        return (data[:1] + mutate(data[1:], own))[:most]

    if not led:
        while threshold is None or trials.inputs < threshold:
            trials.try_one(change(draw.choice(starts), 1 << 20, draw.getrandbits(48)))
        (place / "inputs").write_text(f"{trials.inputs} {time.process_time() - trials.began}")
        return
    import atheris

    corpus = place / "corpus"
    corpus.mkdir()
    for i, start in enumerate(starts):
        (corpus / f"{i:04d}").write_bytes(start)
    # 0 is no limit in the manual, and a second in Atheris; hangs are seen from outside.
    words = ["fuzz", str(corpus), f"-seed={seed + 1}", "-timeout=3600", "-rss_limit_mb=0", "-max_len=1048576"]
    words += [f"-artifact_prefix={place}/", "-handle_segv=0", "-print_final_stats=0", "-len_control=0"]
    atheris.Setup(words, trials.try_one, custom_mutator=change)
    atheris.Fuzz()


def _run(name: str, place: Path, budget: float, seed: int, led: bool, threshold: int | None) -> list[str]:
    """One child to its end; how it ended, where that was not by itself."""
    pid = os.fork()
    if not pid:
        code = 71
        with suppress(BaseException):
            _child(name, place, budget, seed, led, threshold)
            code = 0
        os._exit(code)
    seen, moved = "", time.monotonic()
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return [] if code == 0 else [f"the process ended with {code}"]
        with suppress(OSError):
            now = str((place / "now").stat().st_mtime_ns)
            seen, moved = now, moved if now == seen else time.monotonic()
        if time.monotonic() - moved > HANG_S:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return [f"hangs: {HANG_S:.0f} s on one input"]
        time.sleep(0.05)


def fuzz(
    place: Path,
    minutes: float,
    seed: int,
    only: list[str] | None = None,
    blind: bool = False,
    tell: Callable[[str], object] = print,
    keep: Path | None = None,
    threshold: int | None = None,
) -> tuple[int, int, str]:
    """(inputs tried, findings, how) over all readers, which share the minutes. A child that an input ended goes on with
    another seed, as long as it has time."""
    led = not blind and guided()
    from readers import READERS

    names = only or list(READERS)
    inputs = findings = 0
    for number, name in enumerate(names):
        budget, spent, tries, lines = minutes * 60 / len(names), 0.0, 0, list[str]()
        tried = 0
        while spent < budget and tries < 5:
            folder = place / f"{number}-{tries}"
            folder.mkdir(parents=True)
            lines += _run(name, folder, budget - spent, seed + tries, led, threshold)
            count, seconds = (folder / "inputs").read_text().split() if (folder / "inputs").exists() else ("0", "1")
            tried, spent, tries = tried + int(count), spent + float(seconds), tries + 1
            if (folder / "found").exists():
                lines += (folder / "found").read_text().splitlines()
            if keep and (lines or tries > 1):
                for path in (*folder.glob("input-*"), folder / "now", folder / "log"):
                    if path.exists():
                        keep.mkdir(parents=True, exist_ok=True)
                        shutil.copy(path, keep / f"{name.replace(' ', '-')}-{tries}-{path.name}")
            shutil.rmtree(folder, ignore_errors=True)
            if threshold is not None:
                break
        inputs, findings = inputs + tried, findings + len(lines)
        tell(f"{name}: {tried} inputs in {spent:.0f} s of processor time, {len(lines)} findings")
        for line in lines:
            tell(f"    {line}")
    return inputs, findings, "led by coverage" if led else "drawn blindly"


if __name__ == "__main__":
    sys.exit("python tests/faults fuzz")
