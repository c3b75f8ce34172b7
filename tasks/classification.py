"""Image classification (TIPSv2 §4.1, Table 7): kNN and linear top-1 on frozen vectors.

kNN: every k from one search, softmax(cosine / 0.07) votes, the headline k fixed beforehand. Linear: heads over
learning rates and feature sources trained side by side, one chosen on held-out TRAINING pictures; the common code
chooses on the very split it reports.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from benchmark.contracts import DataKind, EncoderCard, FeatureReader, Measurement, Need, Outcome, Tap, TaskContext, View
from benchmark.errors import DataError
from benchmark.heads.knn import knn_votes, topk_search
from benchmark.heads.linear_sweep import SweepHead, fit_linear_sweep
from benchmark.metrics.classification import label_ranks
from benchmark.statistic import Statistic
from tasks.dense import held_out_images
from tasks.global_vectors import ClsChoice, GlobalVectors

BLOCK = 4096


@dataclass(frozen=True)
class VectorClassification:
    """Protocol of kNN and of the linear sweep on stored vectors (no augmentation)."""

    view: Literal["encoder", "square"]
    view_size: int
    cls: ClsChoice
    ks: tuple[int, ...]
    headline_k: int
    temperature: float
    linear: bool
    linear_with_patches: bool  # heads on CLS beside the mean patch token as well
    learning_rates: tuple[float, ...]  # for batch 256; scaled with the batch
    holdout: float
    epochs: int
    batch: int

    def __post_init__(self) -> None:
        if self.headline_k not in self.ks:
            raise ValueError(f"headline_k {self.headline_k} is not among ks {list(self.ks)}")


class RawVectors:
    """[N, D] CLS tokens side by side as the model gives them, with the mean patch token if asked for."""

    def __init__(self, cls: FeatureReader, choice: ClsChoice, mean: FeatureReader | None = None) -> None:
        self.cls, self.choice, self.mean = cls, choice, mean
        self.shape = (len(cls), self[0:1].shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> torch.Tensor:
        tokens = self.cls[rows]
        picked = {"first": tokens[..., 0, :], "last": tokens[..., -1, :], "mean": tokens.mean(-2)}
        vector = picked.get(self.choice, tokens.flatten(-2))
        return vector if self.mean is None else torch.cat([vector, self.mean[rows]], -1)


class ClassificationTask:
    """kNN and linear heads on the same stored vectors."""

    name: ClassVar[str] = "classification"
    kind: ClassVar[DataKind] = "labels"
    needs_text: ClassVar[bool] = False
    schemas: ClassVar[Mapping[str, type]] = {"vectors": VectorClassification}

    def splits(self, protocol: VectorClassification) -> Sequence[str]:
        return ("train", "test")

    def not_applicable(self, card: EncoderCard, protocol: VectorClassification) -> str | None:
        return None

    def needs(self, card: EncoderCard, protocol: VectorClassification, data: Mapping[str, Any]) -> Sequence[Need]:
        view = View(protocol.view, protocol.view_size)
        taps = [Tap("cls"), Tap("mean_patches")] if protocol.linear and protocol.linear_with_patches else [Tap("cls")]
        return [Need(data[split].images, view, tap) for tap in taps for split in ("train", "test")]

    def run(self, context: TaskContext) -> Outcome:
        """Both kinds of top-1; samples hold a hit per picture and method."""
        protocol, test = context.protocol, context.data["test"]
        labels = np.asarray(test.labels)
        samples: dict[str, Any] = {
            "id": np.array([test.images.image_id(i) for i in range(len(labels))]),
            "label": labels,
        }
        details: dict[str, Any] = {}
        started = time.perf_counter()
        hits = self._knn(context)
        for k, right in hits.items():
            samples[f"kNN hit k={k}"] = right
        score_s = time.perf_counter() - started
        columns = {"kNN top-1": f"kNN hit k={protocol.headline_k}"}
        fit_s = 0.0
        if protocol.linear:
            started = time.perf_counter()
            head, source = self._fit_linear(context)
            fit_s = time.perf_counter() - started
            samples["linear hit"] = linear_hits(head, source, labels, context.device)
            columns["linear top-1"] = "linear hit"
            chosen = {"source": head.source, "learning_rate": head.learning_rate, "weight_decay": head.weight_decay}
            details |= {"linear_head": chosen, "linear_sweep": head.table}
        columns |= {f"kNN top-1 k={k}": f"kNN hit k={k}" for k in hits if k != protocol.headline_k}
        measured = [Measurement(n, Statistic("mean", (c,), 100.0), True, "%") for n, c in columns.items()]
        return Outcome(samples, measured, "kNN top-1", len(labels), details, fit_s, score_s)

    def _knn(self, context: TaskContext) -> dict[int, np.ndarray]:
        """k -> [N] hits. A k larger than the training set is left out."""
        protocol, train, test = context.protocol, context.data["train"], context.data["test"]
        needs = self.needs(context.card, protocol, context.data)
        index = GlobalVectors(context.features(needs[0]), protocol.cls)
        queries = GlobalVectors(context.features(needs[1]), protocol.cls)
        ks = [k for k in protocol.ks if k <= len(index)]
        if protocol.headline_k not in ks:
            raise DataError(
                f"the training split has {len(index)} pictures, fewer than k = {protocol.headline_k}. "
                "Give more pictures, or --set 'ks=[1, 5]' --set headline_k=5"
            )
        scores, found = topk_search(queries, index, max(ks), device=context.device)
        neighbours = torch.from_numpy(np.asarray(train.labels))[found]
        truth = torch.from_numpy(np.asarray(test.labels))
        hits: dict[int, list[np.ndarray]] = {k: [] for k in ks}
        for start in range(0, len(queries), BLOCK):
            rows = slice(start, start + BLOCK)
            votes = knn_votes(scores[rows], neighbours[rows], len(train.class_names), ks, protocol.temperature)
            for k in ks:
                hits[k].append((votes[k].argmax(1) == truth[rows]).numpy().astype(float))
        return {k: np.concatenate(parts) for k, parts in hits.items()}

    def _fit_linear(self, context: TaskContext) -> tuple[SweepHead, RawVectors]:
        """The chosen head and the test vectors it reads."""
        protocol, train = context.protocol, context.data["train"]
        readers = [context.features(need) for need in self.needs(context.card, protocol, context.data)]
        sources = {"cls": tuple(RawVectors(r, protocol.cls) for r in readers[:2])}
        if protocol.linear_with_patches:
            pairs = zip(readers[:2], readers[2:])
            sources["cls+mean_patches"] = tuple(RawVectors(r, protocol.cls, mean) for r, mean in pairs)
        labels = torch.from_numpy(np.asarray(train.labels))
        held = held_out_images(len(labels), protocol.holdout, context.seed)
        head = fit_linear_sweep(
            {name: pair[0] for name, pair in sources.items()},
            labels,
            len(train.class_names),
            held,
            learning_rates=protocol.learning_rates,
            steps=max(1, protocol.epochs * len(labels) // protocol.batch),
            batch=min(protocol.batch, int((~held).sum())),
            seed=context.seed,
            device=context.device,
        )
        return head, sources[head.source][1]


def linear_hits(head: SweepHead, vectors: RawVectors, labels: np.ndarray, device: str) -> np.ndarray:
    """[N] 1 where the head's best class is the true one."""
    out = []
    for start in range(0, len(vectors), BLOCK):
        rows = slice(start, start + BLOCK)
        scores = head.logits(vectors[rows].to(device))
        out.append(label_ranks(scores, torch.from_numpy(labels[rows]).to(device)) < 1)
    return np.concatenate(out).astype(float)


TASK = ClassificationTask()
