"""What a running task sees: stored features, text embeddings, the live encoder, a progress bar."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.contracts import (
    Encoder,
    EncoderCard,
    FeatureReader,
    Need,
    Progress,
    StepInput,
    StepSource,
    TextEncoder,
    identity,
    no_text_tower,
)
from benchmark.contracts.progress import NewProgress, silent
from benchmark.engine.shared_steps import Pieces, Trainer
from benchmark.errors import EncoderError, NotApplicable
from benchmark.features.plan import Planner
from benchmark.features.store import FeatureStore, StoredArray
from benchmark.system.claims import Claim, claimed
from benchmark.system.late import torch

TEXT_BATCH = 256


@dataclass
class Context:
    """Implements `benchmark.contracts.TaskContext`."""

    live: Encoder
    planner: Planner
    store: FeatureStore
    data: Mapping[str, Any]
    needs: Mapping[str, Need]
    seed: int
    device: str
    scratch: Path
    keep_predictions: int = 0
    look_at: Sequence[int] = ()
    cross_check: bool = False
    new_progress: NewProgress = silent
    shared: str = ""  # the key under which other workers make steps of its head (`shared_steps`); empty: none do
    makers: set[str] = field(default_factory=set)  # of those that did

    @property
    def card(self) -> EncoderCard:
        return self.live.card

    def features(self, need: str) -> FeatureReader:
        """The stored array of one of the method's needs, by its name there."""
        return self.planner.array(self.needs[need])

    def encoder(self) -> Encoder:
        """The live encoder."""
        return self.live

    def steps(self, source: StepSource, start: int = 0) -> Iterator[StepInput]:
        """The inputs of step `start` and all that follow, some of them made by other workers of the run."""
        if not self.shared:
            return source.made(range(start, source.steps))
        return Trainer(source, self.pieces(source), self.makers).read(start)

    def pieces(self, source: StepSource) -> Pieces:
        """Where other workers and this one leave what the steps read."""
        return Pieces(source, self.scratch, self.store.root.parent, self.shared)

    def progress(self, label: str, total: int) -> Progress:
        """A new bar."""
        return self.new_progress(label, total)

    def text(self, texts: Sequence[str]) -> torch.Tensor:
        """[N, E] float32 on the CPU, L2-normalised; encoded once and kept in the store."""
        return encode_texts(self.live, self.store, list(texts), self.new_progress)


def encode_texts(encoder: Encoder, store: FeatureStore, texts: list[str], progress: NewProgress) -> torch.Tensor:
    """[N, E] embeddings of `texts`, from the store where they are in it.

    Raises NotApplicable without a text tower, EncoderError when rows are not finite or not of unit length.
    """
    if not encoder.card.has_text or not isinstance(encoder, TextEncoder):
        raise NotApplicable(no_text_tower(encoder.card) or f"{encoder.card.name} has no encode_text")
    digest = hashlib.sha256("\0".join(texts).encode("utf-8")).hexdigest()
    array = store.array({**identity(encoder.card), "texts": digest}, len(texts), "float32")
    if not array.missing():
        return array[:]
    with claimed([Claim(store.root.parent, f"features-{array.folder.name}")]):
        _encode_missing(encoder, array, texts, progress)
    return array[:]


def _encode_missing(encoder: TextEncoder, array: StoredArray, texts: list[str], progress: NewProgress) -> None:
    missing = array.missing()
    bar = progress("encoding text", sum(len(array.shard_range(s)) for s in missing)) if missing else None
    for shard in missing:
        items = array.shard_range(shard)
        rows = []
        for start in range(items.start, items.stop, TEXT_BATCH):
            batch = texts[start : min(start + TEXT_BATCH, items.stop)]
            with torch.inference_mode():
                found = encoder.encode_text(batch)
                if not isinstance(found, torch.Tensor):
                    raise EncoderError(f"{encoder.card.name}: encode_text returned {type(found).__name__}, no tensor")
                rows.append(found.float().cpu())
            if bar:
                bar.advance(len(batch))
        embedded = torch.cat(rows)
        _check_text(encoder, embedded, texts[items.start : items.stop])
        array.write(shard, embedded.numpy())


def _check_text(encoder: TextEncoder, rows: torch.Tensor, texts: Sequence[str]) -> None:
    name = encoder.card.name
    if rows.ndim != 2 or len(rows) != len(texts):
        raise EncoderError(
            f"{name}: encode_text gave {list(rows.shape)} for {len(texts)} texts, expected [{len(texts)}, E]"
        )
    norms = rows.norm(dim=1)
    off = torch.nonzero(~((norms - 1).abs() < 1e-2))
    if len(off):
        i = int(off[0])
        raise EncoderError(
            f"{name}: encode_text({texts[i]!r}) has length {norms[i]:.4g}, expected 1. L2-normalise its rows"
        )
