"""A run on many workers: models × units as one graph of passes and rows, done in `graph`'s order on a cluster.

    prepare PICTURES ─┐
    open MODEL ───────┴─ encode RANGE … ─── row UNIT

Models that see the same pictures are encoded side by side: a range waits until all of their group are open (`pieces`).
A worker that dies is replaced and its piece done again; one that would make other numbers is let go. One that nothing
is left for encodes crops of a head that another trains (`shared_steps`).
"""

from __future__ import annotations

import logging
import os
import sys
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmark.engine.alike import probes, rendered_sets, versions
from benchmark.engine.cluster import Cluster, Lost
from benchmark.engine.deaths import Deaths
from benchmark.engine.graph import Graph, Node, helping, helps, parts, side_by_side, to_help
from benchmark.engine.jobs import Job
from benchmark.engine.options import RunOptions
from benchmark.engine.pieces import Part, encoding, pieces_of
from benchmark.engine.record import refuse
from benchmark.engine.report import Hooks, Note, Report, fail
from benchmark.engine.session import Encoded
from benchmark.engine.slots import Slot
from benchmark.engine.target import Target
from benchmark.engine.worker import Answer, Asked, Brief, Key, Opened
from benchmark.errors import BenchError, UsageError
from benchmark.rows.row import read_row
from benchmark.system.claims import Claim, Held
from benchmark.system.files import disk_errors
from benchmark.system.plurals import number_of

log = logging.getLogger("densebench.workers")
HELP_S = 30.0  # that a worker encodes crops for another before it looks for other work
TICK_S = 1.0  # between two looks at what another run holds, and at who has joined the cluster


def spread(targets: Sequence[Target], jobs: Sequence[Job], options: RunOptions, hooks: Hooks, report: Report) -> None:
    """Makes every row that is missing, on the cluster of `--ray`; what came of it is in `report`.

    Raises UsageError as one process would, BenchError where there is no cluster or no worker that may take part.
    """
    todo: list[dict[int, Slot] | None] = []
    order: dict[Path, tuple[int, int]] = {}  # rows stand as one process would have made them
    for number, target in enumerate(targets):
        slots = target.slots(jobs, target.stamp) if target.stamp else None
        todo.append(None if slots is None else target.settle(jobs, slots, report, hooks))
        order |= {slot.folder: (number, job) for job, slot in (slots or {}).items()}
    if not jobs or all(slots == {} for slots in todo):
        return
    with report.timed("tasks"):
        run = _Spread([t.absolute() for t in targets], todo, jobs, options, hooks, report)
        try:
            run.go()
        finally:
            run.close()
    order |= run.folders
    report.rows.sort(key=lambda row: order.get(row.folder, (len(targets), 0)))


class _Spread:
    def __init__(
        self,
        targets: Sequence[Target],
        todo: Sequence[dict[int, Slot] | None],
        jobs: Sequence[Job],
        options: RunOptions,
        hooks: Hooks,
        report: Report,
    ) -> None:
        self.targets, self.jobs, self.hooks, self.report = targets, jobs, hooks, report
        self.options, self.todo = options, todo
        self.cache = Path(os.path.abspath(options.cache))
        self.cluster: Cluster | None = None
        self.marks: list[Path] = []  # an empty file in each of the folders that all workers must see
        self.rendered = rendered_sets(jobs)
        self.graph = Graph()
        self.loaded: dict[Any, int | None] = {}  # of each worker that has said hello: the model it holds
        self.calls: dict[Any, tuple[Any, Node | None]] = {}  # call -> worker and what it does; None: hello
        self.deaths = Deaths(self.cache)
        self.waiting: list[Node] = []  # for another run
        self.alone: set[str] = set()  # rows whose head nobody can help to train at the moment
        self.claims = Held()  # by the piece, or the pass of a range
        self.ranges: dict[tuple[int, Key], set[str]] = {}  # of a pass: its ranges that are not done
        self.encoded: dict[tuple[int, Key], Encoded] = {}  # until a row has it on its account
        self.accounts: dict[str, Encoded] = {}  # of rows that were handed out, by their node: again after a death
        self.opened: dict[int, Opened] = {}
        self.group = side_by_side([model for model, slots in enumerate(todo) if slots != {}])
        self.closed = set(self.group)  # models that are not open yet
        self.folders: dict[Path, tuple[int, int]] = {}  # of rows -> model and job
        self.refusals: list[str] = []
        self.pictures = 0

    def _start(self) -> Cluster:
        """The cluster, told what this run is."""
        for folder in (self.options.results, self.options.cache):
            mark = Path(os.path.abspath(folder)) / f".shared-{uuid.uuid4().hex[:8]}.tmp"
            with disk_errors(mark):
                mark.parent.mkdir(parents=True, exist_ok=True)
                mark.touch()
            self.marks.append(mark)
        self.cluster = Cluster(self.options.ray or "local", self.options.gpus, self.options.device)
        place = tuple(p or os.getcwd() for p in sys.path)
        self.cluster.give(
            Brief(
                tuple(self.targets), tuple(self.jobs), self.rendered, Path.cwd(), place, tuple(self.marks), versions(),
                probes(self.jobs), self.hooks.debug,
            )
        )  # fmt: skip
        self.graph.add(Node(f"prepare {digest}", work=("prepare", digest)) for digest in self.rendered)
        for model, slots in enumerate(self.todo):
            if slots != {}:
                work = ("open", model, slots and {job: slot.absolute() for job, slot in slots.items()})
                self.graph.add([Node(f"open {model}", model=model, group=self.group[model], opens=True, work=work)])
        rows = sum(len(self.jobs) if slots is None else len(slots) for slots in self.todo)
        self.bar = self.hooks.progress(f"rows on {number_of(self.cluster.size, 'worker')}", rows)
        return self.cluster

    def go(self) -> None:
        """Until nothing is left."""
        cluster, ticked = self._start(), 0.0
        while not self.graph.finished:
            if time.monotonic() - ticked > TICK_S:
                ticked = time.monotonic()
                self._hire(cluster)
                held, self.waiting = self.waiting, []
                self.alone = {row for row in self.alone if self.deaths.too_many(f"help {row}")}
                for waiting in held:
                    self.graph.again(waiting)
                self.bar.advance(0)
            self._assign(cluster)
            if not self.calls:  # all that is left another run is doing
                time.sleep(TICK_S)
            for call, answer in cluster.wait(list(self.calls), TICK_S) if self.calls else ():
                worker, node = self.calls.pop(call)
                if isinstance(answer, Lost):
                    self.loaded.pop(worker, None)
                    self._lost(cluster, node, answer.why)
                elif node is not None and helps(node) and not answer.refused:
                    if not answer.pieces:  # nothing to be made now, or not by it: what is wrong the row will say
                        self.alone.add(node.work[1])
                elif answer.refused or (node is None and (answer.failed or answer.usage)):
                    self.loaded.pop(worker, None)
                    cluster.fire(worker)
                    self._dismissed(node, answer.refused or answer.failed or answer.usage)
                elif node is None:
                    self.loaded[worker] = None
                    self.deaths.forget("hello")
                else:
                    self._take(node, answer)

    def close(self) -> None:
        """Lets go of everything."""
        if self.cluster:
            for worker in {*self.loaded, *(worker for worker, _ in self.calls.values())}:
                with suppress(Exception):
                    self.cluster.fire(worker)
            self.cluster.close()
        self.claims.close()
        for mark in self.marks:
            mark.unlink(missing_ok=True)

    def _hire(self, cluster: Cluster) -> None:
        self.graph.workers = cluster.size
        greeting = sum(node is None for _, node in self.calls.values())
        wanted = cluster.size - len(self.refusals)
        if wanted <= 0 and not self.loaded and not greeting:
            raise BenchError(f"--ray: no worker can take part: {self.refusals[-1]}")
        for _ in range(wanted - len(self.loaded) - greeting):
            worker = cluster.hire()
            self.calls[cluster.call(worker, "hello")] = (worker, None)

    def _lost(self, cluster: Cluster, node: Node | None, why: str) -> None:
        """A worker is gone: another does its piece, unless it has taken several with it."""
        piece = node.key if node else "hello"
        log.info("%s: its worker is gone (%s)", piece, why)
        slot = self.opened[node.work[1]].todo[node.work[2]] if node is not None and node.work[0] == "row" else None
        count = self.deaths.count(piece, slot)
        if node is None:
            if self.deaths.too_many(piece, cluster.size):
                raise BenchError(f"--ray: workers die before they begin: {why}")
        elif helps(node):
            self.alone.add(node.work[1])
        elif not self.deaths.too_many(piece):
            self.graph.again(node)
        else:
            self._take(node, Answer(failed=f"its worker was lost {count} times without getting any further ({why})"))

    def _dismissed(self, node: Node | None, why: str) -> None:
        """A worker that would make other numbers takes no part."""
        log.warning("%s", why)
        self.refusals.append(why)
        if node is not None and not helps(node):
            self.graph.again(node)

    def _assign(self, cluster: Cluster) -> None:
        """Gives every free worker something to do, as far as there is something."""
        busy = {worker for worker, _ in self.calls.values()}
        for worker, loaded in self.loaded.items():
            if worker in busy:
                continue
            while (node := self.graph.next(loaded)) is not None and not self._claimed(node):
                self._put_off(node)
            if node is None:
                self._help(cluster, worker, loaded)
                continue
            self.calls[cluster.call(worker, *self._words(node))] = (worker, node)
            self.loaded[worker] = loaded if node.model is None else node.model

    def _help(self, cluster: Cluster, worker: Any, loaded: int | None) -> None:
        """Lets a worker that nothing else is left for encode crops of a head that another trains."""
        at_work = [node for _, node in self.calls.values() if node is not None]
        trained = to_help(at_work, loaded, self.alone)
        if trained is None:
            return
        _, model, job = trained.work
        opened = self.opened[model]
        words = ("help", model, tuple(opened.jobs), opened.identity, job, opened.todo[job], HELP_S)
        self.calls[cluster.call(worker, *words)] = (worker, helping(trained))
        self.loaded[worker] = model

    def _words(self, node: Node) -> tuple[Any, ...]:
        if node.work[0] == "encode":
            return ("encode", *map(self._asked, node.work[1]))
        if node.work[0] != "row":
            return tuple(node.work)
        _, model, job = node.work
        opened = self.opened[model]
        if node.key not in self.accounts:
            spent = [self.encoded.pop((model, key), Encoded()) for key in opened.jobs[job].passes]
            self.accounts[node.key] = Encoded(sum(e.pictures for e in spent), sum(e.seconds for e in spent))
        encoded = self.accounts[node.key]
        return ("row", model, tuple(opened.jobs), opened.identity, job, opened.todo[job], encoded)

    def _asked(self, part: Part) -> Asked:
        opened = self.opened[part.model]
        return part.model, tuple(opened.jobs), opened.identity, part.key, part.blocks

    def _claimed(self, node: Node) -> bool:
        """Whether no other run does this piece; from here on none does."""
        kind, *words = node.work
        if kind == "row":
            model, job = words
            return self.claims.take(node.key, [self.opened[model].todo[job].claim(self.cache)])
        return kind != "encode" or all(map(self._claimed_part, words[0]))

    def _claimed_part(self, part: Part) -> bool:
        found = self.opened[part.model].passes[part.key].claims
        return self.claims.take(f"pass {part.model} {part.key}", [Claim(self.cache, claim) for claim in found])

    def _put_off(self, node: Node) -> None:
        """For what another run is doing: of a range of several models the others go on."""
        parts = node.work[1] if node.work[0] == "encode" else ()
        if len(parts) < 2:
            self.waiting.append(node)
            return
        alone = [(part, encoding([part], node.group)) for part in parts]
        for part, one in alone:
            self.ranges[part.model, part.key] ^= {node.key, one.key}
        self.graph.split(node, [one for _, one in alone])

    def _take(self, node: Node, answer: Answer) -> None:
        if answer.usage:
            raise UsageError(answer.usage)
        kind, *words = node.work
        if kind == "open":
            if answer.opened:
                self._open(words[0], answer.opened)
            else:
                fail(self.report, self.hooks, Note(self.targets[words[0]].shown, None, answer.failed))
            self.closed.discard(words[0])
            self._expand(self.group[words[0]])
        elif kind == "encode":
            for place, part in enumerate(words[0]):
                self._ranged(node, part, answer.encoded[place] if answer.encoded else Encoded())
        elif kind == "row":
            self._row(node, words[0], words[1], answer)
        self.graph.done(node.key)

    def _ranged(self, node: Node, part: Part, spent: Encoded) -> None:
        """A range is done. One that failed is tried again by the row that needs it, which says what is wrong."""
        self._count(part.model, spent.pictures)
        self.bar.note(f"{number_of(self.pictures, 'picture')} encoded")
        before = self.encoded.get(of := (part.model, part.key), Encoded())
        self.encoded[of] = Encoded(before.pictures + spent.pictures, before.seconds + spent.seconds)
        self.ranges[of].discard(node.key)
        if not self.ranges[of]:
            self.claims.free(f"pass {part.model} {part.key}")

    def _row(self, node: Node, model: int, job: int, answer: Answer) -> None:
        shown, unit, change = self.targets[model].shown, self.jobs[job].unit, self.jobs[job].change
        slot = self.opened[model].todo[job]
        note = Note(shown, unit, answer.failed or answer.not_applicable, change)
        self._count(model, answer.forwards)
        self.claims.free(node.key)
        self.bar.advance(1)
        if answer.failed:
            fail(self.report, self.hooks, note)
        elif answer.not_applicable:
            refuse(self.report, slot, note)
        else:
            row = read_row(slot.folder)
            self.folders[row.folder] = (model, job)
            self.report.reused += answer.reused
            self.report.rows.append(row)
            self.hooks.row(row)

    def _count(self, model: int, pictures: int) -> None:
        self.pictures += pictures
        forwards, shown = self.report.forwards, self.targets[model].shown
        forwards[shown] = forwards.get(shown, 0) + pictures

    def _open(self, model: int, opened: Opened) -> None:
        """A model was opened: what of its rows is there."""
        shown = self.targets[model].shown
        self.opened[model] = opened
        self.report.rows += opened.report.rows
        self.report.reused += opened.report.reused
        self.report.not_applicable += opened.report.not_applicable
        for row in opened.report.rows:
            self.hooks.row(row)
        for job, text in opened.not_applicable.items():
            note = Note(shown, self.jobs[job].unit, text, self.jobs[job].change)
            refuse(self.report, opened.todo[job], note)
        for job, text in opened.failed.items():
            fail(self.report, self.hooks, Note(shown, self.jobs[job].unit, text, self.jobs[job].change))
        self.bar.advance(len(opened.report.rows) + len(opened.not_applicable) + len(opened.failed))
        self.report.forwards.setdefault(shown, 0)

    def _expand(self, group: int) -> None:
        """Once the models of a group are open: what there is to do for them."""
        models = [model for model, own in self.group.items() if own == group]
        if self.closed.intersection(models):
            return
        opened = {model: self.opened[model] for model in models if model in self.opened}
        most = parts(self.graph.workers, len(set(self.group.values())))
        nodes = pieces_of(opened, group, self.jobs, self.rendered, most)
        for node in nodes:
            for part in node.work[1] if node.work[0] == "encode" else ():
                self.ranges.setdefault((part.model, part.key), set()).add(node.key)
        self.graph.add(nodes)
