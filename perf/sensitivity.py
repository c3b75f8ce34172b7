"""What does `bench sensitivity` encode beside the plain run, and are its rows those of `bench run --set`?

    python perf/sensitivity.py --model tipsv2-mini --model clip-mini          # nine tasks of scenes
    python perf/sensitivity.py --model clip-mini --limit 40

Three runs of one model, each from nothing but what it made itself: the preset alone, the preset with all of its
alternatives, and every alternative once more as `--set`, on the preset's own features. Asked: at most 1.5 times the
preset's pictures, and rows that agree to the last digit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from same_rows import content

from benchmark import run
from benchmark.rows.row import read_row
from benchmark.sensitivity.effects import changes_of
from benchmark.sensitivity.measure import sensitivity

MOST = 1.5


def measure(model: str, suite: str, limit: int | None, place: Path) -> bool:
    """Prints a line for each run; whether all holds."""
    begun = time.process_time()
    plain = run(model, suite=suite, limit=limit, results=place / "plain", cache=place / "cache")
    alone = time.process_time() - begun
    print(f"{model}: the preset alone: {plain.forwards[model]} pictures, {alone:.0f} processor seconds", flush=True)
    begun = time.process_time()
    found = sensitivity([model], suite=suite, limit=limit, results=place / "all", cache=place / "other")
    ratio = found.report.forwards[model] / plain.forwards[model]
    spent = time.process_time() - begun
    print(f"{model}: with its alternatives: {found.report.forwards[model]} pictures, {ratio:.2f} times; {spent:.0f} "
          f"processor seconds, {spent / alone:.2f} times", flush=True)  # fmt: skip
    folders = {effect.folder: effect for effect in found.effects}
    differ = 0
    for folder, effect in folders.items():
        base, row = read_row(effect.base_folder), read_row(folder)
        change = next(one for one in changes_of(base) if str(one) == effect.change)
        words = {f"{base.data.task.name}.{field}": text for field, text in change.settings.items()}
        again = run(model, effect.unit, limit=limit, overrides=words, results=place / "set", cache=place / "cache")
        made, was = content(again.rows[0]), content(row)
        wrong = sorted(name for name in {*made, *was} if made.get(name) != was.get(name))
        differ += bool(wrong)
        said = f"differs in {', '.join(wrong)}" if wrong else "the same"
        print(f"  {effect.unit}, {effect.change}: {said}", flush=True)
    print(f"{model}: {len(folders)} alternatives, {differ} differ from --set", flush=True)
    return not (differ or ratio > MOST or found.report.failures)


def main() -> int:
    """1 where a row differs, a task fails, or too much is encoded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--suite", default="scenes")
    parser.add_argument("--limit", type=int)
    asked = parser.parse_args()
    held = []
    for model in asked.model:
        with tempfile.TemporaryDirectory() as place:
            held.append(measure(model, asked.suite, asked.limit, Path(place)))
    return int(not all(held))


if __name__ == "__main__":
    sys.exit(main())
