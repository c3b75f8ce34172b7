"""What is the same for every head that is trained by gradient steps on live crops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from benchmark.contracts import EncoderCard, Method
from benchmark.images.windows import Size
from tasks.training.fields import TrainedHead, missing_layers
from tasks.training.forwards import live_forwards

Head = TypeVar("Head", bound=TrainedHead)


class TrainedMethod(Method[Head]):
    """A method that stores nothing: the encoder is shown crops of training pictures, then the test pictures."""

    @property
    def keeps_head(self) -> bool:
        return not self.protocol.head_weights

    def splits(self) -> Sequence[str]:
        return ("test",) if self.protocol.head_weights else ("train", "test")

    def not_applicable(self, card: EncoderCard) -> str | None:
        return missing_layers(card, self.protocol)

    def live_forwards(self, card: EncoderCard, shapes: Sequence[Size], train: int) -> Mapping[Size, int]:
        return live_forwards(self.protocol, shapes)

    def head_steps(self) -> int:
        return 0 if self.protocol.head_weights else self.protocol.steps
