"""How far a checkpoint's training was, out of its name, as the common libraries write it.

    Lightning     epoch=3-step=1000-val_loss=0.25      mmengine  iter_1000, epoch_10, best_mIoU_iter_8000
    transformers  checkpoint-500                       open_clip epoch_10
    timm          checkpoint-10, model_best, last      litgpt    step-00001000
    accelerate    step_1000, epoch_2                   DeepSpeed global_step1000
    detectron2    model_0012499                        Composer  ep3-ba1000-rank0

The number behind a word for optimizer steps counts; without one, that behind a word for epochs; without either, one
that stands alone or behind a word for the file itself. Numbers of shards, precisions, metrics and versions say nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

Unit = Literal["step", "epoch"]
# Behind the word: an optional separator, digits, perhaps k or m for thousands or millions. A decimal is a metric's
# value (train_loss_step=0.25), a word that goes on in letters before it is another (timestep).
_NUMBER = r"[\s_=:.\-]*(\d+)([km](?![a-z]))?(?![.,]\d)(?!\d)"
_STEPS = r"(?:global[_\-]?steps?|steps?|iterations?|iters?)"
_STEP = re.compile(rf"(?<![a-z])(?:{_STEPS}|it|ba(?=\d)){_NUMBER}")
_BEFORE_STEP = re.compile(rf"(?:^|(?<=[_\- ])(?=\d+[km]))(\d+)([km])?[_\- ]?{_STEPS}(?![a-z])")
_EPOCH = re.compile(rf"(?:(?<![a-z])(?:epochs?|ep)|(?<![a-z0-9])e(?=\d)){_NUMBER}")
_FILE = re.compile(
    r"(?<![a-z])(?:checkpoint|ckpt|chkpt|model|weights|training|state)s?[\s_=\-]*(?:\d+_)?(\d+)()(?![a-z\d]|[.,]\d)"
)
_ALONE = re.compile(r"^(\d+)()$")
_SHARD = re.compile(r"[\s_.\-]*(?<!\d)\d+[_\-]of[_\-]\d+$")
_SUFFIX = re.compile(r"\.(?:safetensors|npz|pth|pt|ckpt|bin|tar)$")
_METRIC = re.compile(
    r"[a-z0-9]_$"
)  # before `step` in the name of a metric (val_loss_step=3): taken if nothing better is
_PLANNED = re.compile(r"(?:max|total|num|warm_?up|per|every|of)[_\-]?$")  # max_steps_10: not where the training was
_VALUE = re.compile(r"\d+\.\d+(?:e-?\d+)?")  # of a metric, as in val_loss=0.25; a seed or a run has no decimals
_TIMES = {"": 1, "k": 1_000, "m": 1_000_000}


@dataclass(frozen=True)
class Progress:
    """`number` optimizer steps or epochs; a number of neither (`checkpoint-500`, `0012499`) is taken for steps."""

    number: int
    unit: Unit = "step"

    def __str__(self) -> str:
        return f"{self.unit} {self.number}"


def progress_of(name: str) -> Progress | None:
    """What the name of a checkpoint (a file, or a folder and what is below it) says; None where it says nothing."""
    parts = [_bare(part) for part in reversed(name.lower().replace("\\", "/").split("/"))]
    whole = [_SHARD.sub("", part) for part in parts]
    for pattern, places, unit in (
        (_STEP, parts, "step"),
        (_BEFORE_STEP, parts, "step"),
        (_EPOCH, parts, "epoch"),
        (_FILE, whole, "step"),
        (_ALONE, whole, "step"),
    ):
        found = [(p[: m.start()], m) for p in places for m in pattern.finditer(p)]
        likely = sorted(
            (bool(_METRIC.search(before)), i) for i, (before, _) in enumerate(found) if not _PLANNED.search(before)
        )
        if likely:
            match = found[likely[0][1]][1]
            return Progress(int(match[1]) * _TIMES[match[2] or ""], unit)  # type: ignore[arg-type]
    return None


def ordered_by_name(names: Iterable[str]) -> dict[str, Progress]:
    """What puts the checkpoints of one run in order: the steps in their names, or their epochs where no name has a
    step. A name that is not in it is ordered by time."""
    said = {name: progress for name in names if (progress := progress_of(name))}
    unit = "step" if any(p.unit == "step" for p in said.values()) else "epoch"
    return {name: progress for name, progress in said.items() if progress.unit == unit}


def namesakes(name: str, others: Iterable[str]) -> Iterator[list[str]]:
    """`others` that are called as `name` is but for step, epoch and metrics; but for any number; and all of them."""
    rest = list(others)
    for out_of in (_unnumbered, lambda n: re.sub(r"\d+", "#", _unnumbered(n))):
        yield [other for other in rest if out_of(other) == out_of(name)]
    yield rest


def _unnumbered(name: str) -> str:
    """`name` without what says how far training was: ema-step-100.safetensors -> ema-step-#."""
    name = _VALUE.sub("#", _SHARD.sub("", _bare(name.lower())))
    for patterns in ((_STEP, _BEFORE_STEP, _EPOCH), (_FILE, _ALONE)):
        bare = name
        for pattern in patterns:
            bare = pattern.sub(lambda m: re.sub(r"\d+[km]?", "#", m[0]), bare)
        if bare != name:
            return bare
    return name


def _bare(part: str) -> str:
    """`part` without the endings of files (`iter_1000.pth`, `checkpoint-10.pth.tar`)."""
    while (shorter := _SUFFIX.sub("", part)) != part:
        part = shorter
    return part
