"""The head of `fast` linear segmentation on `scenes`: processor seconds and its choice, over another checkout's.

    python perf/segmentation_head.py --against FOLDER [--against-python PYTHON] [--scenes FOLDER] [--rounds 5]

256,000 sampled pixels of the embedded encoder (width 128), 21 classes, ten folds, six penalties and the refit. Each
side encodes once, in a process of its own; then both fit in turn, one thread each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SERVE = """
import json, os, resource, sys, time
from benchmark import load_encoder, load_task
import tasks.linear_segmentation as module

fit, took = module.fit_logistic, []
def timed(*given, **how):
    start = time.process_time()
    head = fit(*given, **how)
    took.append(time.process_time() - start)
    return head
module.fit_logistic = timed
encoder = load_encoder("tipsv2-mini", device="cpu")
task = load_task("linear_segmentation/scenes", workers=0)
for line in sys.stdin:
    outcome = task.run(encoder)
    value = outcome.measurements[0].statistic.of(outcome.samples)
    print(json.dumps([took[-1], value, outcome.details["penalty"]]), flush=True)
"""


def main() -> None:
    """Prints both sides' medians, their choices and the median of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", required=True, help="the folder of another checkout")
    parser.add_argument("--against-python", default=sys.executable, help="the interpreter of its environment")
    parser.add_argument("--scenes", type=Path, help="rendered scenes of an earlier run: the folder `scenes` of a cache")
    parser.add_argument("--rounds", type=int, default=5)
    words = parser.parse_args()
    here = str(Path(__file__).resolve().parents[1])
    sides = {"ours": (here, sys.executable), "theirs": (words.against, words.against_python)}
    with tempfile.TemporaryDirectory() as place:
        running = []
        for name, (checkout, python) in sides.items():
            cache = Path(place) / name
            cache.mkdir()
            if words.scenes:
                (cache / "scenes").symlink_to(words.scenes.resolve())
            environment = {**os.environ, "PYTHONPATH": checkout, "BENCH_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
            running.append(subprocess.Popen([python, "-c", SERVE], cwd=checkout, env=environment, text=True,
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE))  # fmt: skip

        def fitted(process: subprocess.Popen[str]) -> Any:
            print(file=process.stdin, flush=True)
            assert process.stdout is not None
            return json.loads(process.stdout.readline())

        for process in running:  # renders and encodes
            fitted(process)
        found = [[fitted(process) for process in running] for _ in range(words.rounds)]
        for process in running:
            process.communicate()
    for name, column in zip(sides, zip(*found)):
        seconds, value, penalty = zip(*column)
        print(f"{name}: {statistics.median(seconds):.2f} s, penalty {penalty[0]:g}, mIoU {value[0]:.4f}")
    print(f"{statistics.median(a[0] / b[0] for a, b in found):.2f} ×")


if __name__ == "__main__":
    main()
