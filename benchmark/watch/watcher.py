"""Scoring each new checkpoint of a training run once, and saying which of them lost something.

Nothing is picked as "best": the numbers are those of the reported split, and choosing by them would spoil them.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmark.compare import noise_floor as noise
from benchmark.compare.compare import Comparison, compare
from benchmark.compare.sides import PUBLISHED, WATCHED, label, open_side
from benchmark.compare.wanted import Wanted
from benchmark.errors import BenchError, UsageError, first_line
from benchmark.rows.row import Row, read_all, slug
from benchmark.system.digest import fingerprint
from benchmark.system.plurals import number_of
from benchmark.watch.checkpoints import Checkpoint, damage, find, is_exportable, is_training_state, pickles, step_of
from benchmark.watch.history import Entry, History, Point, only_watcher, rows_folder
from benchmark.watch.report import FEW, write_reports
from benchmark.watch.steps import namesakes, ordered_by_name

PICKLE = "a pickle, never opened. Save checkpoints as safetensors"
PASSED_OVER = (
    "training states passed over: {}. They hold no model that can be scored; --prepare with a command turns each "
    "into a model folder (an example: examples/ci/weights_of_state.py)"
)
EXPORT = shlex.join([sys.executable, "-m", "benchmark.cli", "export", "{checkpoint}", "--out", "{out}"])
Scorer = Callable[[Path, Path], tuple[list[Row], list[str]]]  # weights, results -> rows, failures


@dataclass
class Plan:
    """What to watch, and until when."""

    folder: Path
    model: str
    suite: str  # what is measured, as the page has it: a suite's name, words of --task
    out: Path  # state, rows, history, reports
    results: Path  # where a baseline's name and the noise floors are looked up
    baseline: str | None = None  # None: the checkpoint scored before
    tolerance: float | None = None
    every: float = 30.0  # seconds between two looks
    settle: float = 10.0  # seconds without a change before a checkpoint counts as written
    once: bool = False
    until_regression: bool = False
    idle: float | None = None  # stop after so many seconds without anything new
    only: Wanted | None = None  # the units that are measured: a baseline may have others, too
    scoring: Mapping[str, Any] = field(default_factory=dict)  # the scorer's options that decide a number, as JSON
    prepare: str | None = None  # command that turns a training state into weights: "… {checkpoint} … {out}"


@dataclass
class Watcher:
    """The loop; `score`, `sleep` and `clock` are there to be replaced."""

    plan: Plan
    score: Scorer
    say: Callable[[str], None] = print
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    _seen: dict[str, tuple[str, float]] = field(default_factory=dict)
    _said: set[str] = field(default_factory=set)
    _said_passed_over: bool = False
    _reported: tuple[int, list[str]] = (-1, [])

    def run(self) -> History:
        """Looks until the plan says to stop. Raises UsageError for a folder that is not there or is watched already."""
        plan = self.plan
        if not plan.folder.is_dir():
            raise UsageError(f"{plan.folder}: no such folder. bench watch needs the folder that training writes into")
        if plan.baseline == PUBLISHED:
            raise UsageError(
                "--baseline published: a paper gives no samples to test against. Name a measured model or folder"
            )
        if plan.baseline:
            open_side(plan.baseline, plan.results)  # a wrong name is said before anything is scored
        with only_watcher(plan.out):
            history = History.open(plan.out, plan.model, plan.suite, self._scoring())
            self._compare_again(history)
            self._report(history)
            quiet_since = self.clock()
            while True:
                if self._look(history):
                    quiet_since = self.clock()
                if self._done(history, self.clock() - quiet_since):
                    return history
                self.sleep(min(plan.every, plan.settle) if plan.once else plan.every)

    def _scoring(self) -> dict[str, Any]:
        """What decides the numbers of a history. The watched folder is told from --out, so that both may move."""
        return {"folder": seen_from(self.plan.folder, self.plan.out), "prepare": self.plan.prepare, **self.plan.scoring}

    def _compare_again(self, history: History) -> None:
        """Gives every entry the verdicts of this plan's baseline and tolerance, from its stored rows, where they were
        made with others. Raises UsageError when those rows have gone."""
        plan, kept = self.plan, list(history.entries)
        compared: dict[str, Any] = {"baseline": plan.baseline, "tolerance": plan.tolerance}
        if plan.only and plan.only.tolerances:
            compared["tolerances"] = dict(plan.only.tolerances)
        if plan.baseline or plan.tolerance is None:  # where the baseline's name and the noise floors are looked up
            compared["results"] = seen_from(plan.results, plan.out)
        before, history.compared = history.compared, compared
        if not kept or before == compared:
            return
        history.entries = []
        for entry in kept:
            rows_at = self._rows_at(entry.name, entry.stamp)
            rows, _ = read_all(rows_at)
            found = {(row.unit, label(row)): row for row in rows}
            lost = [p.unit for p in entry.points if (p.unit, p.protocol) not in found]
            if lost:
                raise UsageError(
                    f"{rows_at}: the row of {lost[0]} has gone, so {entry.name} cannot be compared with another "
                    "baseline or tolerance. Give another --out"
                )
            baseline, comparison, refused = self._compared(entry.name, rows, rows_at, history)
            points = tuple(_point(found[p.unit, p.protocol], comparison) for p in entry.points)
            history.entries.append(replace(entry, baseline=baseline, points=points, refused=tuple(refused)))
        history.save()
        self.say("compared again: the baseline or the tolerance is another one")
        for entry in history.latest():
            self._announce(entry)

    def _rows_at(self, name: str, stamp: str) -> Path:
        """Where the rows of one state of a checkpoint lie."""
        return self.plan.out / "rows" / rows_folder(name, stamp)

    def _done(self, history: History, quiet: float) -> bool:
        plan = self.plan
        pending = [c for c in self._offered() if not history.knows(c.name, c.stamp())]
        last = history.entries[-1] if history.entries else None
        if plan.until_regression and last and last.regressions and last.name not in {c.name for c in pending}:
            return True
        if plan.once:
            return all(self._age(c) >= plan.settle for c in pending)
        return plan.idle is not None and quiet >= plan.idle

    def _look(self, history: History) -> bool:
        """Scores every whole checkpoint that is new; whether there was one."""
        worked = False
        for name in pickles(self.plan.folder):
            self._say_once(f"{name}: {PICKLE}")
        self._say_passed_over()
        for checkpoint in self._offered():
            stamp = checkpoint.stamp()
            if history.knows(checkpoint.name, stamp) or self._age(checkpoint) < self.plan.settle:
                continue
            reason = damage(checkpoint)
            if reason:
                self._say_once(f"{checkpoint.name}: waiting: {reason}")
                continue
            entry = self._score(checkpoint, stamp, history)
            history.add(entry)
            worked = True
            self._announce(entry)
            self._report(history)
            if self.plan.until_regression and entry.regressions:
                return True
        self._report(history)
        return worked

    def _offered(self) -> list[Checkpoint]:
        """What may be scored. Training states that `bench export` does not read are no weights of a model until
        --prepare has made some of them."""
        found = find(self.plan.folder)
        return found if self.plan.prepare else [c for c in found if is_exportable(c) or not is_training_state(c)]

    def _say_passed_over(self) -> None:
        """One line in all: a run that goes on writes more of them."""
        if self.plan.prepare or self._said_passed_over:
            return
        if states := sum(is_training_state(c) and not is_exportable(c) for c in find(self.plan.folder)):
            self._said_passed_over = True
            self.say(PASSED_OVER.format(states))

    def _report(self, history: History) -> None:
        """Writes the reports when there is something new to say."""
        waiting = self.unreadable(history)
        if (len(history.entries), waiting) != self._reported:
            write_reports(history, waiting)
            self._reported = (len(history.entries), waiting)

    def _age(self, checkpoint: Checkpoint) -> float:
        """Seconds for which the checkpoint has been seen unchanged, by this process's own clock."""
        stamp, now = checkpoint.stamp(), self.clock()
        seen = self._seen.get(checkpoint.name)
        if seen is None or seen[0] != stamp:
            self._seen[checkpoint.name] = (stamp, now)
            return 0.0
        return now - seen[1]

    def unreadable(self, history: History) -> list[str]:
        """One line for each checkpoint that is there and has no entry, with the reason.

        Pickles are named where nothing else is there: beside checkpoints they are optimizer states and the like.
        Training states that are passed over are no failure.
        """
        there = self._offered()
        waiting = [c for c in there if not history.knows(c.name, c.stamp())]
        lines = [f"{c.name}: {damage(c) or 'not scored yet'}" for c in waiting]
        if not there and not history.entries:
            lines += [f"{name}: {PICKLE}" for name in pickles(self.plan.folder)]
        return lines

    def _score(self, checkpoint: Checkpoint, stamp: str, history: History) -> Entry:
        started = time.perf_counter()
        rows_at = self._rows_at(checkpoint.name, stamp)
        try:
            weights = self._prepared(checkpoint, stamp)
            rows, failures = self.score(weights, rows_at)
        except UsageError:
            raise
        except Exception as e:  # whatever one checkpoint makes of a library: the next ones are scored
            rows, failures = [], [str(e) if isinstance(e, BenchError) else f"{type(e).__name__}: {first_line(e)}"]
        baseline, found, refused = self._compared(checkpoint.name, rows, rows_at, history)
        points = tuple(_point(row, found) for row in rows)
        return Entry(
            name=checkpoint.name,
            stamp=stamp,
            step=step_of(checkpoint.name),
            baseline=baseline,
            points=points,
            failures=tuple(failures),
            refused=tuple(refused),
            seconds=round(time.perf_counter() - started, 3),
        )

    def _prepared(self, checkpoint: Checkpoint, stamp: str) -> Path:
        """The weights to load: the checkpoint itself, or what --prepare makes of it, or `bench export` of a state."""
        prepare = self.plan.prepare or (EXPORT if is_exportable(checkpoint) else None)
        if not prepare:
            return checkpoint.path
        target = self.plan.out / "prepared" / rows_folder(checkpoint.name, stamp)
        target.parent.mkdir(parents=True, exist_ok=True)
        words = [
            w.replace("{checkpoint}", str(checkpoint.path)).replace("{out}", str(target)) for w in shlex.split(prepare)
        ]
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False)
        except OSError as e:
            raise UsageError(f"--prepare {words[0]!r}: {e.strerror}. Give a command that is on the PATH") from None
        if done.returncode != 0:
            last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
            what = "--prepare" if self.plan.prepare else "bench export"
            raise BenchError(f"{checkpoint.name}: {what} failed with exit code {done.returncode}: {last}")
        return target

    def _compared(
        self, name: str, rows: list[Row], rows_at: Path, history: History
    ) -> tuple[str, Comparison | None, Sequence[str]]:
        baseline = self.plan.baseline or self._previous(name, history)
        if not baseline or not rows:
            return baseline or "", None, ()
        try:
            floors = noise.read(self.plan.results)
            found = compare(
                baseline, rows_at, results=self.plan.results, only=self.plan.only, tolerance=self.plan.tolerance,
                floors=floors,
            )  # fmt: skip
        except BenchError as e:
            return baseline, None, (str(e),)
        for line in found.conditions:  # Δ may be densebench's, where it was updated between two checkpoints
            self._say_once(f"{name}: {line}")
        return baseline, found, (*found.refused, *found.problems)

    def _previous(self, name: str, history: History) -> str | None:
        """The rows of the checkpoint before: by their names, or the one scored before where `name` says nothing; of
        those that are called alike (`ema-step-100` for `ema-step-200`) where there is one."""
        scored = [e for e in history.entries if e.points]
        for alike in namesakes(name, [e.name for e in scored]):
            before = [e for e in scored if e.name in alike]
            order = ordered_by_name([name, *alike])
            if name in order and any(e.name in order for e in before):
                earlier = [e for e in before if e.name in order and order[e.name].number < order[name].number]
                before = sorted(earlier, key=lambda e: order[e.name].number)
            if before:
                return str(self._rows_at(before[-1].name, before[-1].stamp))
        return None

    def _announce(self, entry: Entry) -> None:
        worse = ", ".join(f"{p.unit} {p.delta:+.3g} {p.metric_unit}" for p in entry.regressions if p.delta is not None)
        few = sum(p.verdict == FEW for p in entry.points)
        compared = sum(bool(p.verdict) for p in entry.points) - few
        calm = "nothing compared" if not compared else f"{compared} compared, nothing worse"
        calm += f", {few} of too few samples to tell" if few else ""
        scored = f"{number_of(len(entry.points), 'task')} scored, {calm}" if entry.points else "could not be scored"
        state = f"worse: {worse}" if worse else scored
        self.say(f"{entry.name}: {state} ({entry.seconds:.0f} s)")
        for line in (*entry.failures, *entry.refused):
            self.say(f"{entry.name}: {line}")

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self.say(line)


def _point(row: Row, found: Comparison | None) -> Point:
    """The main number of a row, with its verdict where `found` has compared it."""
    main = row.main
    point = Point(
        unit=row.unit, protocol=label(row), metric=row.data.main_metric, metric_unit=main.unit,
        higher_is_better=main.higher_is_better, value=main.value, ci95=main.ci95,
    )  # fmt: skip
    key = (point.unit, point.protocol, point.metric)
    compared = next((u for u in found.units if (u.unit, u.protocol, u.metric) == key), None) if found else None
    if compared is None:
        return point
    return replace(point, verdict=compared.verdict, delta=compared.delta, p_adjusted=compared.p_adjusted)


def seen_from(path: Path, base: Path) -> str:
    """`path` as seen from `base`, both resolved: the same words after the two have moved together."""
    return os.path.relpath(path.resolve(), base.resolve())


def default_out(folder: Path, results: Path) -> Path:
    """Where a watched folder's history lies below `results`: a place of its own for each of several `…/checkpoints`."""
    return results / WATCHED / f"{slug(folder.resolve().name)}-{fingerprint(seen_from(folder, results))[:6]}"


def engine_scorer(model: str, tasks: Sequence[str], suite: str | None, **options: Any) -> Scorer:
    """A scorer that runs `tasks` and `suite` with `model` and the checkpoint as its weights; finished units are reused.

    Raises UsageError for a wrong name or option here, not hours later at the first checkpoint.
    """
    from benchmark.engine.run import check_words

    check_words(model, tasks, suite, **options)

    def score(weights: Path, results: Path) -> tuple[list[Row], list[str]]:
        from benchmark.engine.run import run

        report = run(model, tasks, suite=suite, **{**options, "weights": str(weights), "results": results})
        return report.rows, [f"{note.unit or note.model}: {note.text}" for note in report.failures]

    return score
