"""What the steps of a long head read, where any process may make it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

StepInput = Mapping[str, "torch.Tensor"]  # by name: features of a step's crops, and what else its loss reads


class StepSource(Protocol):
    """The inputs of a head's training steps: each a function of its step's number, whoever makes it and when.

    A frozen encoder's features of augmented crops are such, and are nearly all that training a head on them costs.
    """

    @property
    def steps(self) -> int:
        """How many there are."""
        ...

    @property
    def pictures(self) -> int:
        """Crops of a step, the most there are."""
        ...

    def made(self, steps: Iterable[int]) -> Iterator[StepInput]:
        """The inputs of `steps`, in their order; the next number is asked for when it is due, or a little earlier."""
        ...
