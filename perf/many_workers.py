"""A whole `bench run` on Ray workers of one core each: one worker, then two, and whether their rows are the same.

    python perf/many_workers.py                              # four embedded encoders, nine tasks, nothing stored
    python perf/many_workers.py --heads                      # six `paper` heads of 40 steps: three tasks, two encoders
    python perf/many_workers.py --limit 200 --scenes FOLDER  # fewer samples of pictures that are rendered already

Prints the ratio of the wall times of the two commands, from their start to their end, and exits with 1 where it is
above the limit (0.6; heads 0.58) or a row differs. Wall times of a busy machine say little: the share of the processors
that was idle stands beside each, and before the first one waits until the machine is.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from same_rows import OF_A_RUN

from benchmark.rows.row import read_all

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("tipsv2-mini", "tips-mini", "clip-mini", "random-vit")
HEADS = ("depth", "normals", "linear_segmentation")  # of the first and the third of these
MOST = {False: 0.6, True: 0.58}  # with --heads or without: what two workers may take of the time of one
WARM_UP = 12800 / 50000  # share of the steps, as in the preset of depth
CALM, PATIENCE_S = 0.3, 600.0  # load of a minute that counts as idle, and how long it is waited for


def words(asked: argparse.Namespace) -> list[str]:
    """Of the command, but for workers and results."""
    said = ["run", "--no-check", "--device", "cpu"]
    if not asked.heads:
        said += ["--suite", "scenes", *(w for name in MODELS for w in ("--model", name))]
    else:
        said += ["--protocol", "paper", "--model", MODELS[0], "--model", MODELS[2]]
        for task in HEADS:
            warm_up = str(round(WARM_UP * asked.steps))
            said += ["--task", f"{task}/scenes", "--set", f"{task}.steps={asked.steps}"]
            said += ["--set", f"{task}.warmup_steps={warm_up}"]
    limit = asked.limit or (100 if asked.heads else None)
    return said + (["--limit", str(limit)] if limit else [])


def run(said: list[str], cache: Path, results: Path) -> None:
    """One command; raises CalledProcessError with what it said where it fails."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "BENCH_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", "benchmark.cli", *said, "--results", str(results)]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-4000:], sep="\n", file=sys.stderr)
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}")


def rendered(asked: argparse.Namespace, place: Path) -> Path | None:
    """Pictures of `scenes` that need not be rendered while a head is timed: those of `--scenes`, or made here."""
    if asked.scenes or not asked.heads:
        return asked.scenes
    cheap = [w for task in HEADS for w in ("--task", f"{task}/scenes")]
    limit = ["--limit", str(asked.limit or 100)]
    run(["run", "--model", "pixels", "--no-check", *cheap, *limit], place / "warm", place / "warm-rows")
    return place / "warm" / "scenes"


def jiffies() -> tuple[int, int]:
    """Of all processors since the machine started: spent on anything, and idle."""
    counts = list(map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9]))
    return sum(counts), counts[3] + counts[4]


def wait_until_idle() -> None:
    """Returns once nobody else is at work, or after a while with a line that says so."""
    until = time.monotonic() + PATIENCE_S
    while os.getloadavg()[0] > CALM:
        if time.monotonic() > until:
            print(f"the machine is busy (load {os.getloadavg()[0]:.1f}): the ratio will say little", flush=True)
            return
        time.sleep(5)


def measured(workers: int, said: list[str], place: Path, scenes: Path | None) -> float:
    """Seconds of the whole command; its rows are in `place`."""
    cache = place / "cache"
    cache.mkdir(parents=True)
    if scenes:
        (cache / "scenes").symlink_to(scenes.resolve())
    before, began = jiffies(), time.perf_counter()
    run([*said, "--ray", "local", "--gpus", str(workers)], cache, place / "rows")
    seconds, after = time.perf_counter() - began, jiffies()
    idle = (after[1] - before[1]) / (after[0] - before[0])
    rows = [row.data for row in read_all(place / "rows")[0]]
    busy = sum(row.timing.total_s for row in rows)
    helped = sum(row.timing.trained_by is not None for row in rows)
    print(
        f"{workers} workers: {seconds:.1f} s for {len(rows)} rows, of which workers made rows for {busy:.1f} s "
        f"({helped} heads were trained by several); processors idle {100 * idle:.0f} %",
        flush=True,
    )
    return seconds


def main() -> int:
    """1 where a row differs, or two workers take longer than they may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", action="store_true", help="six `paper` heads in place of the nine tasks")
    parser.add_argument("--steps", type=int, default=40, help="of each head")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--scenes", type=Path)
    parser.add_argument("--now", action="store_true", help="on a machine that is busy, too")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        scenes = rendered(asked, place)
        places, took = {count: place / str(count) for count in (1, 2)}, {}
        for count, of in places.items():
            if not asked.now:
                wait_until_idle()
            took[count] = measured(count, words(asked), of, scenes)
        found = [
            {(r.model, r.unit): {k: v for k, v in r.data.json().items() if k not in OF_A_RUN} for r in rows}
            for rows, _ in (read_all(of / "rows") for of in places.values())
        ]
    wrong = sum(found[0].get(key) != found[1].get(key) for key in {*found[0], *found[1]})
    ratio = took[2] / took[1]
    most = MOST[asked.heads]
    print(f"ratio {ratio:.3f} of two workers to one (at most {most}); {len(found[0])} rows, {wrong} differ")
    return int(wrong > 0 or ratio > most)


if __name__ == "__main__":
    sys.exit(main())
