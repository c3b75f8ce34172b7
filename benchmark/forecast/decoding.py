"""What models side by side save: a picture that several of them see is decoded once (`bench run --ray`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.engine import graph
from benchmark.forecast.lines import Forecast, Size

Lot = dict[tuple[int, str], tuple[Size, int]]  # (model, pass) -> size of the input, pictures that are to be encoded


@dataclass(frozen=True)
class Decoding:
    """How often pictures are decoded whose features are kept."""

    encoded: int  # pictures, for each model by itself
    decoded: int  # where models that see the same are side by side
    apart: tuple[str, ...] = ()  # models that see the same as others whose weights leave them no room

    @property
    def saved(self) -> int:
        """Pictures that need not be decoded again."""
        return self.encoded - self.decoded


def groups(plans: Sequence[Forecast]) -> dict[int, int]:
    """The group of each model that has something to do, as a run has them."""
    return graph.side_by_side([number for number, plan in enumerate(plans) if plan.todo])


def lots(plans: Sequence[Forecast], models: Sequence[int]) -> list[list[Lot]]:
    """The passes of `models`, a group: those that see the same pixels, parted where they do not fit side by side."""
    passes: Lot = {
        (model, key): (size, pictures)
        for model in models
        for key, (size, pictures) in plans[model].passes.items()
        if pictures
    }
    parted = graph.lots(
        {(model, key): plans[model].pixels[key] for model, key in passes},
        {model: float(plans[model].weights) for model in models},
        {model: plans[model].room for model in models},
    )
    return [[{of: passes[of] for of in lot} for lot in one] for one in parted]


def decoding(plans: Sequence[Forecast]) -> Decoding:
    """Of a run of all `plans` with --ray."""
    group = groups(plans)
    encoded = decoded = 0
    apart: dict[int, None] = {}
    for one in sorted(set(group.values())):
        for parted in lots(plans, [model for model, own in group.items() if own == one]):
            for lot in parted:
                encoded += sum(pictures for _, pictures in lot.values())
                decoded += max(pictures for _, pictures in lot.values())
            apart |= dict.fromkeys(model for lot in parted[1:] for model, _ in lot)
    return Decoding(encoded, decoded, tuple(plans[model].model for model in sorted(apart)))
