"""The training crops of the linear probe as the frozen encoder sees them, step by step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from benchmark.contracts import StepInput, TaskContext
from benchmark.errors import BenchError
from tasks.mm.data import SegmentationSource, training_loader, training_pipeline
from tasks.mm.model import Segmentor
from tasks.mm.protocol import MmProbe


@dataclass(frozen=True)
class EncodedCrops:
    """Implements `benchmark.contracts.StepSource`; an iterable from step `start` on, as mmengine's loop wants one."""

    context: TaskContext
    model: Segmentor
    protocol: MmProbe
    start: int = 0

    @property
    def steps(self) -> int:
        return self.protocol.steps

    @property
    def pictures(self) -> int:
        return self.protocol.batch_size

    @property
    def dataset(self) -> SegmentationSource:
        """The training split in its pipeline."""
        data = self.context.data["train"]
        return SegmentationSource(data, training_pipeline(self.protocol, len(data.class_names)))

    def made(self, steps: Iterable[int]) -> Iterator[StepInput]:
        """What `Segmentor.encoded` gives for each step. Raises BenchError for a picture or mask that cannot be read."""
        for batch in training_loader(self.dataset, self.protocol, self.context.seed, steps, self.context.device):
            if isinstance(batch, BenchError):
                raise batch
            yield self.model.encoded(batch)

    def __iter__(self) -> Iterator[StepInput]:
        return self.context.steps(self, self.start)
