"""How long a plan takes on many workers: the graph of a run, done in its own order with the plan's seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.engine.graph import Graph, Node, parts
from benchmark.engine.worker import KEPT
from benchmark.features.store import shard_items
from benchmark.forecast.decoding import groups, lots
from benchmark.forecast.lines import Forecast, Line, Size
from benchmark.system.plurals import number_of

OVERHEAD_S = 0.05  # of a piece of work: asking for it, and its answer
TRAINING = 0.05  # of a crop's forward, at most: the step of the head that reads it, which one worker does for all


@dataclass(frozen=True)
class Schedule:
    """A run as it would go, in seconds."""

    workers: int
    jobs: int
    makespan: float
    total: float  # of all pieces and of loading each model once
    longest: float  # piece, all workers sharing its crops
    path: tuple[
        tuple[str, float], ...
    ]  # what is done and its seconds: the pieces of the longest chain of which each waits for the one before
    loads: int  # of models, by all workers together

    @property
    def bound(self) -> float:
        """No order is quicker: the longest chain, or all pieces shared evenly."""
        return max(sum(seconds for _, seconds in self.path), self.total / self.workers)

    @property
    def idle(self) -> float:
        """Share of the workers' time in which they have nothing to do."""
        return max(0.0, 1 - self.total / (self.workers * self.makespan)) if self.makespan else 0.0


def schedule(plans: Sequence[Forecast], workers: int) -> Schedule:
    """The run of all `plans` on `workers` that are as fast as the device they were made on."""
    graph = Graph(workers)
    group = groups(plans)
    opened = [
        Node(
            f"open {plans[number].model} {number}",
            plans[number].load_s,
            (),
            number,
            own,
            True,
            work=_Work("", (number,)),
        )
        for number, own in group.items()
    ]
    closed = Counter(group.values())  # models of each group that are not open yet
    graph.add(opened)
    held: list[list[int]] = [[] for _ in range(workers)]  # models that each has loaded, the last one at work
    running: dict[int, _Running] = {}  # by the worker that began it
    now, loads = 0.0, 0
    while not graph.finished:
        free = [worker for worker in range(workers) if worker not in running]
        while free and (node := graph.next(held[free[0]][-1] if held[free[0]] else None)) is not None:
            assert node.model is not None
            worker = free.pop(0)
            new = [model for model in node.work.models if _loads(held[worker], model)]
            loads += len(new)
            seconds = OVERHEAD_S + node.cost - node.crops
            seconds += 0.0 if node.opens else sum(plans[model].load_s for model in new)
            running[worker] = _Running(node, seconds, node.crops)
        loads += _shared_out(free, held, [one for one in running.values() if one.crops > 0], plans)
        spent = min(one.next for one in running.values())
        now += spent
        for worker, one in list(running.items()):
            if one.pass_by(spent):
                del running[worker]
                if (own := one.node.group) is not None and one.node.opens:
                    closed[own] -= 1
                    if not closed[own]:
                        models = [model for model in group if group[model] == own]
                        graph.add(_pieces(plans, models, own, parts(workers, len(closed))))
                graph.done(one.node.key)
    nodes = list(graph.nodes.values())
    total = sum(node.cost + OVERHEAD_S for node in nodes)
    longest = max((_alone(node, workers) for node in nodes), default=0.0)
    return Schedule(workers, len(nodes), now, total, longest, _path(nodes, opened, plans, workers), loads)


@dataclass(frozen=True)
class _Work:
    """What a piece is, in words, and the models that it needs."""

    words: str
    models: tuple[int, ...]


@dataclass
class _Running:
    """A piece at work."""

    node: Node
    rest: float  # seconds of its own worker, after the crops
    crops: float  # seconds of one worker, shared by all that are at it
    at_it: int = 1

    @property
    def pace(self) -> float:
        return min(self.at_it, 1 / TRAINING)

    @property
    def next(self) -> float:
        """Seconds until its crops are there, or, where none are left, until it is done."""
        return self.crops / self.pace if self.crops > 0 else self.rest

    def pass_by(self, seconds: float) -> bool:
        """Goes on for `seconds`, at most `next`; whether it is done."""
        if self.crops > 0:
            self.crops = self.crops - seconds * self.pace if seconds < self.next else 0.0
            return self.crops == 0 and self.rest == 0
        self.rest = self.rest - seconds if seconds < self.rest else 0.0
        return self.rest == 0


def _loads(held: list[int], model: int) -> bool:
    """Whether a worker that holds these models has to load `model`, which is at work from now on."""
    new = model not in held
    held[:] = [*(one for one in held[-KEPT:] if one != model), model]
    return new


def _shared_out(
    free: Sequence[int], held: Sequence[list[int]], running: Sequence[_Running], plans: Sequence[Forecast]
) -> int:
    """Lets `free` workers help where most is left for each that is at it; how many load a model for that, which is
    more to do there."""
    loads = 0
    for one in running:
        one.at_it = 1
    for worker in free if running else ():
        one = max(running, key=lambda one: one.crops / one.at_it)
        model = one.node.model
        assert model is not None
        if model not in held[worker] and one.crops / one.at_it < plans[model].load_s:
            continue
        if _loads(held[worker], model):
            loads += 1
            one.crops += plans[model].load_s
        one.at_it += 1
    return loads


def _alone(node: Node, workers: int) -> float:
    """Seconds that a piece takes at least, all workers helping."""
    return node.cost - node.crops + node.crops * max(1 / workers, min(1.0, TRAINING))


def _pieces(plans: Sequence[Forecast], models: Sequence[int], group: int, most: int) -> list[Node]:
    """Ranges (at most so many of a pass) and rows of the models of a group, as a run cuts them."""
    nodes: list[Node] = []
    read: dict[tuple[int, str], list[str]] = {}  # the ranges of each pass
    for lot in [lot for parted in lots(plans, models) for lot in parted]:
        pictures = max(n for _, n in lot.values())
        count = min(most, -(-pictures // shard_items(pictures)))
        seconds = sum(n / plans[model].images_per_s[size] for (model, _), (size, n) in lot.items()) / count
        held = tuple(dict.fromkeys(model for model, _ in lot))
        beside = f" by {number_of(len(held), 'model')}" if len(held) > 1 else ""
        (first, key), *_ = lot
        reader = next(line.unit for line in plans[first].todo if key in line.passes)
        work = _Work(f"encode {number_of(pictures // count, 'picture')} for {reader}{beside}", held)
        names = [f"{first} encode {key} {i}" for i in range(count)]
        nodes += [Node(name, seconds, (), first, group, work=work) for name in names]
        read |= dict.fromkeys(lot, names)
    for model in models:
        for line in plans[model].todo:
            after = tuple(name for key in line.passes for name in read.get((model, key), ()))
            name = f"{line.unit} {line.change}".strip()
            crops = sum(count / plans[model].images_per_s[size] for size, count in line.crops.items())
            seconds, work = _row_seconds(line, plans[model]), _Work(f"score {name}", (model,))
            nodes.append(Node(f"{model} {name}", seconds, after, model, group, crops=crops, work=work))
    return nodes


def _row_seconds(line: Line, plan: Forecast) -> float:
    """Seconds of a task whose features are there: forwards that are not kept, and a convex fit."""
    kept: Counter[Size] = Counter()
    for size, pictures in line.passes.values():
        kept[size] += pictures
    live = sum((count - kept[size]) / plan.images_per_s[size] for size, count in line.todo.items())
    return live + (line.fit / plan.rate if plan.rate else 0.0)


def _path(
    nodes: Sequence[Node], opened: Sequence[Node], plans: Sequence[Forecast], workers: int
) -> tuple[tuple[str, float], ...]:
    """The longest chain, in words, with its seconds."""
    opens = {node.model: node for node in opened}
    best: dict[str, tuple[float, tuple[tuple[str, float], ...]]] = {}
    for node in nodes:
        head = [] if node.opens else [best[opens[model].key] for model in node.work.models]
        before = max([best[key] for key in node.after] + head, default=(0.0, ()), key=lambda chain: chain[0])
        words = f"load {plans[node.work.models[0]].model}" if node.opens else node.work.words
        seconds = _alone(node, workers)
        best[node.key] = (before[0] + seconds, (*before[1], (words, seconds)))
    return max(best.values(), default=(0.0, ()), key=lambda chain: chain[0])[1]
