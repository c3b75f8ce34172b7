"""The main job from nothing, of this checkout over another's: `bench run` with an empty cache, each side in turn.

    python perf/first_run.py --against FOLDER --against-python PYTHON [--rounds 1] [--threads N] [--limit N]

Printed for each run: wall clock and processor seconds of the whole command (its workers included), the seconds until
the first row was written, the largest process, and the most that all its processes held together (shared pages counted
once). Then medians of the ratios, and whether both sides found the same: exit code 1 where they have other rows, or a
main metric differs by more than a thousandth. On a busy machine read the processor seconds; how idle it was stands
beside each run. A round takes four to five minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

EVERY_S = 0.25  # the memory of all processes is looked at
NEAR = 1e-3  # relative: what a row may differ by where a head is fitted in other steps
FIGURES = ("wall clock", "processor", "first row", "largest process", "all processes")


@dataclass(frozen=True)
class Run:
    """One command: seconds, MB and the main value of each task; `idle` is a share of all processors."""

    figures: tuple[float, ...]  # in the order of FIGURES
    values: dict[str, float]
    idle: float

    def line(self) -> str:
        wall, processor, first, largest, together = self.figures
        return (
            f"{wall:6.1f} s, processor {processor:6.1f} s, first row after {first:5.1f} s, largest process "
            f"{largest:5.0f} MB, all together {together:5.0f} MB; {len(self.values)} rows; "
            f"processors idle {100 * self.idle:.0f} %"
        )


def family(root: int) -> list[int]:
    """The process and all that descend from it."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def together_mb(root: int) -> float:
    """What the process and its descendants hold now: a page that several share counts in parts."""
    total = 0
    for pid in family(root):
        try:
            held = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
        except OSError:
            continue
        total += int(held[1]) if held else 0
    return total / 1024


def jiffies() -> tuple[int, int]:
    """Of all processors since the machine started: spent on anything, and idle."""
    counts = list(map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9]))
    return sum(counts), counts[3] + counts[4]


def first_run(checkout: str, python: str, words: argparse.Namespace) -> Run:
    """`bench run` of a checkout, nothing cached. Ends this program with what the command said where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        environment = {**os.environ, "PYTHONPATH": checkout, "BENCH_CACHE": str(place / "cache")}
        if words.threads:
            environment["OMP_NUM_THREADS"] = str(words.threads)
        command = [python, "-m", "benchmark.cli", "run", "--results", str(place / "rows")]
        command += ["--limit", str(words.limit)] if words.limit else []
        before, since, began = jiffies(), time.time(), time.perf_counter()
        with open(place / "said", "w") as said:
            child = subprocess.Popen(command, cwd=place, env=environment, stdout=said, stderr=said)
        together = 0.0
        while True:
            pid, status, used = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            together = max(together, together_mb(child.pid))
            time.sleep(EVERY_S)
        wall, after = time.perf_counter() - began, jiffies()
        if status:
            sys.exit(f"{checkout}: bench run failed:\n{(place / 'said').read_text()[-3000:]}")
        files = sorted((place / "rows").glob("**/result.json"), key=lambda path: path.stat().st_mtime)
        rows = [json.loads(path.read_text()) for path in files]
        values = {row["task"]["name"]: next(iter(row["metrics"].values()))["value"] for row in rows}
        first = files[0].stat().st_mtime - since
    figures = (wall, used.ru_utime + used.ru_stime, first, used.ru_maxrss / 1024, together)
    return Run(figures, values, (after[1] - before[1]) / (after[0] - before[0]))


def compared(ours: dict[str, float], theirs: dict[str, float]) -> bool:
    """Prints how the values of both sides agree; False where they do not."""
    same = [task for task, value in ours.items() if theirs.get(task) == value]
    print(f"{len(same)} of {len(ours)} main metrics are the same to the last digit")
    wrong = ours.keys() ^ theirs.keys()
    for task in sorted(ours.keys() & theirs.keys() - set(same)):
        near = abs(ours[task] - theirs[task]) <= NEAR * abs(theirs[task])
        print(f"{task}: {ours[task]:.6g} and {theirs[task]:.6g}{'' if near else ': NOT THE SAME'}")
        wrong = wrong if near else wrong | {task}
    return not wrong


def main() -> int:
    """1 where the two sides did not find the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", required=True, help="the folder of another checkout")
    parser.add_argument("--against-python", default=sys.executable, help="the interpreter of its environment")
    parser.add_argument("--threads", type=int, help="of each process that computes [default: as the command has it]")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--limit", type=int, help="samples of each split, to try this script")
    words = parser.parse_args()
    sides = {
        "ours": (str(Path(__file__).resolve().parents[1]), sys.executable),
        "theirs": (str(Path(words.against).resolve()), words.against_python),
    }
    found: dict[str, list[Run]] = {name: [] for name in sides}
    for number in range(words.rounds):
        for name in (*sides,) if number % 2 == 0 else reversed(sides):
            found[name].append(first_run(*sides[name], words))
            print(f"{name + ':':8}{found[name][-1].line()}", flush=True)
    for number, figure in enumerate(FIGURES):
        pairs = [(a.figures[number], b.figures[number]) for a, b in zip(found["ours"], found["theirs"])]
        print(f"{figure}: {statistics.median(a / b for a, b in pairs):.2f} ×")
    return int(not compared(found["ours"][-1].values, found["theirs"][-1].values))


if __name__ == "__main__":
    sys.exit(main())
