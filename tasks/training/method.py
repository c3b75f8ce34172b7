"""What is the same for every head that is trained by gradient steps on live crops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from benchmark.contracts import EncoderCard, Method, StepSource, TaskContext
from benchmark.images.windows import Size
from tasks.training.fields import TrainedHead, missing_layers
from tasks.training.forwards import crop_forwards, test_forwards

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
        return crop_forwards(self.protocol, shapes) + test_forwards(self.protocol, shapes)

    def crop_forwards(self, card: EncoderCard, shapes: Sequence[Size], train: int) -> Mapping[Size, int]:
        return crop_forwards(self.protocol, shapes)

    def trained_data(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """The splits as the head is trained on them."""
        return data

    def step_source(self, context: TaskContext) -> StepSource | None:
        """The crops that the head is trained on, encoded; None where it is loaded."""
        if self.protocol.head_weights:
            return None
        from tasks.training.head import encoded_batches  # imports torch

        return encoded_batches(context, self.protocol, self.trained_data(context.data))

    def head_steps(self) -> int:
        return 0 if self.protocol.head_weights else self.protocol.steps
