"""What there is to do for models that are side by side: ranges of passes, and rows.

Where several of them see the same pixels of the same pictures, a range is one piece of work for all whose weights fit
into a worker's memory: each of its pictures is decoded once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmark.engine.alike import base_of
from benchmark.engine.graph import Node, Pass, lots, ranges
from benchmark.engine.jobs import Job
from benchmark.engine.worker import Key, Opened, PassPlan


@dataclass(frozen=True)
class Part:
    """What one model has of a range."""

    model: int
    key: Key
    blocks: tuple[int, ...]
    cost: float


def pieces_of(
    opened: Mapping[int, Opened], group: int, jobs: Sequence[Job], rendered: Collection[str], most: int
) -> list[Node]:
    """The nodes of the models `opened`, by their numbers; a pass in at most so many ranges."""
    nodes = []
    read: dict[Pass, list[str]] = {}  # its ranges
    for together in _same_pixels(opened):
        for parts in _ranges(together, most):
            node = encoding(parts, group, next(iter(together.values())).rendered)
            nodes.append(node)
            for part in parts:
                read.setdefault((part.model, part.key), []).append(node.key)
    for model, found in opened.items():
        for job, plan in found.jobs.items():
            after = [name for key in plan.passes for name in read.get((model, key), ())]
            sets = [s for data in jobs[job].data.values() for s in data.pictures().values()]
            after += [f"prepare {d}" for d in dict.fromkeys(base_of(s).digest for s in sets) if d in rendered]
            work = ("row", model, job)
            row = Node(f"row {model} {job}", plan.cost, tuple(after), model, group, crops=plan.crops, work=work)
            nodes.append(row)
    return nodes


def encoding(parts: Sequence[Part], group: int | None, rendered: str = "") -> Node:
    """The node of one range."""
    first = parts[0]
    models = ",".join(str(part.model) for part in parts)
    name = f"encode {models} {first.key} {min(part.blocks[0] for part in parts)}"
    after = (f"prepare {rendered}",) if rendered else ()
    cost = sum(part.cost for part in parts)
    return Node(name, cost, after, first.model, group, work=("encode", tuple(parts)))


def _same_pixels(opened: Mapping[int, Opened]) -> Iterator[dict[Pass, PassPlan]]:
    """Passes that read the same pixels and lack something, as many together as fit into memory."""
    passes = {(model, key): one for model, found in opened.items() for key, one in found.passes.items() if one.blocks}
    pixels = {of: one.pixels for of, one in passes.items()}
    weights = {model: float(found.weights) for model, found in opened.items()}
    room = {model: found.room for model, found in opened.items()}
    for parted in lots(pixels, weights, room):
        for lot in parted:
            yield {of: passes[of] for of in lot}


def _ranges(together: Mapping[Pass, PassPlan], most: int) -> Iterator[list[Part]]:
    blocks = sorted({block for shared in together.values() for block, _ in shared.blocks})
    for run in map(set, ranges(blocks, most)):
        parts = []
        for (model, key), shared in together.items():
            lacking = {block: n for block, n in shared.blocks if block in run}
            if lacking:
                parts.append(Part(model, key, tuple(lacking), shared.cost * sum(lacking.values())))
        yield parts
