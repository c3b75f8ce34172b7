"""Image classification (TIPSv2 §4.1, Table 7): kNN and linear top-1 on frozen vectors.

kNN: every k from one search, softmax(cosine / 0.07) votes, the headline k fixed beforehand. Linear: feature source and
penalty, or learning rate, are chosen on held-out TRAINING pictures; the common code chooses on the very split it
reports. `vectors`: multinomial logistic regression on the final CLS and mean patch token, stored: convex, so 300
pictures train it as well as a million. `sweep`: DINOv2's sources, CLS of the last blocks with and without the mean
patch token, heads trained side by side by SGD on augmented crops or on stored features.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np

from benchmark.contracts import (
    Answer,
    Encoder,
    EncoderCard,
    KeptHead,
    Measurement,
    Method,
    Need,
    Outcome,
    Tap,
    Task,
    TaskContext,
    View,
)
from benchmark.errors import DataError
from benchmark.heads.knn import knn_votes, topk_search
from benchmark.heads.linear_sweep import fit_linear_sweep
from benchmark.heads.logistic import Criterion, fit_best
from benchmark.heads.schedule import batches
from benchmark.images.views import resolve_view
from benchmark.images.windows import Size
from benchmark.metrics.classification import blind_hits
from benchmark.statistics.statistic import Statistic
from benchmark.system.bounds import Amount, Count, Counts, Decay, NotNegative, Part, Positive, Rates
from benchmark.system.late import F, torch
from benchmark.system.plurals import number_of
from tasks.dense import held_out_folds, held_out_images
from tasks.global_vectors import ClsChoice, GlobalVectors
from tasks.idle_fields import check_view
from tasks.linear_answers import BLOCK, LinearHead, linear_answers
from tasks.predictions import label_pictures
from tasks.swept_vectors import (
    CropFeed,
    Pooling,
    RawVectors,
    Source,
    StoredVectors,
    curve_file,
    layer_taps,
    sources_for,
    vector_of,
)


@dataclass(frozen=True)
class VectorClassification:
    """Protocol of kNN and of logistic regression on stored vectors (no augmentation)."""

    view: Literal["encoder", "square"]
    view_size: Amount
    cls: ClsChoice
    ks: Counts
    headline_k: Count
    temperature: Positive
    linear: bool
    linear_with_patches: bool  # a head on CLS beside the mean patch token as well; the better one is kept
    holdout: Part  # share of the TRAINING pictures a fold is judged on
    judged_images: Count  # held out at least, in as many folds as that takes
    penalties: Rates
    selection: Criterion  # what source and penalty are chosen by on the held-out pictures

    def __post_init__(self) -> None:
        check_view(self.view, self.view_size)
        if self.headline_k not in self.ks:
            raise ValueError(f"headline_k {self.headline_k} is not among ks {list(self.ks)}")


@dataclass(frozen=True)
class SweptClassification:
    """Protocol of kNN and of DINOv2's linear sweep: SGD with momentum on every source and rate at once."""

    view: Literal["encoder", "square", "short-side"]
    view_size: Amount  # pixels; 0: the encoder's
    crop: Amount  # short-side only; 0: view_size
    interpolation: Literal["encoder", "bicubic", "bilinear"]  # of the view and of training crops; encoder: its own
    cls: ClsChoice
    ks: Counts
    headline_k: Count
    temperature: Positive
    linear: bool
    blocks: Counts  # CLS tokens of so many last blocks side by side; more than an encoder has are left out
    mean_patches: Pooling  # heads with the last block's mean patch token beside them
    learning_rates: Rates  # for batch 256; scaled with the batch
    weight_decay: NotNegative
    momentum: Decay
    epochs: Count
    epoch_length: Count  # steps
    batch: Count  # over all GPUs
    augmentation: Literal["none", "crop-flip"]  # crop-flip: random resized crops and flips, encoded anew in every step
    holdout: Part  # share of the training images heads are chosen on, and which no head is trained on

    def __post_init__(self) -> None:
        if self.headline_k not in self.ks:
            raise ValueError(f"headline_k {self.headline_k} is not among ks {list(self.ks)}")
        if self.view == "encoder" and self.interpolation != "encoder":
            raise ValueError(f"interpolation = {self.interpolation} needs a view other than encoder, which has its own")
        check_view(self.view, self.view_size, self.crop)
        if 1 not in self.blocks:
            raise ValueError("blocks must hold 1: it is what every encoder has")

    @property
    def steps(self) -> int:
        return self.epochs * self.epoch_length


P = TypeVar("P", VectorClassification, SweptClassification)


class _Classification(Method[P]):
    """kNN and a linear head on the same stored vectors."""

    @property
    def keeps_head(self) -> bool:
        return self.protocol.linear

    def splits(self) -> Sequence[str]:
        return ("train", "test")

    @abstractmethod
    def view(self) -> View:
        """How pictures are laid before the encoder."""

    @abstractmethod
    def linear_taps(self, card: EncoderCard) -> Mapping[str, Tap]:
        """What the linear head reads beside CLS, by name."""

    @abstractmethod
    def linear_head(self, context: TaskContext) -> LinearHead:
        """The chosen linear head."""

    def needs(self, card: EncoderCard, data: Mapping[str, Any]) -> Mapping[str, Need]:
        taps = {"cls": Tap("cls"), **(self.linear_taps(card) if self.protocol.linear else {})}
        view = self.view()
        return {
            f"{split}/{name}": Need(data[split].images, view, tap)
            for name, tap in taps.items()
            for split in ("train", "test")
        }

    def run(self, context: TaskContext) -> Outcome:
        """Both kinds of top-1; samples hold a hit per picture and method."""
        protocol, test = self.protocol, context.data["test"]
        if len(np.unique(context.data["train"].labels)) < 2:
            raise DataError(
                "every training picture is of one class: nothing can be learned. Give pictures of two or more"
            )
        labels = np.asarray(test.labels)
        samples: dict[str, Any] = {
            "id": np.array([test.images.image_id(i) for i in range(len(labels))]),
            "label": labels,
        }
        details: dict[str, Any] = {}
        started = time.perf_counter()
        guesses, found = self._knn(context)
        hits = {k: (guess == labels).astype(float) for k, guess in guesses.items()}
        for k, right in hits.items():
            samples[f"kNN hit k={k}"] = right
        score_s = time.perf_counter() - started
        columns = {"kNN top-1": f"kNN hit k={protocol.headline_k}"}
        fit_s, files, linear, kept = 0.0, dict[str, bytes](), np.zeros(0, int), None
        if protocol.linear:
            started = time.perf_counter()
            head = self.linear_head(context)
            details |= head.details
            files |= head.files
            kept = head.kept
            fit_s = time.perf_counter() - started
            samples["linear hit"], linear = linear_answers(head, labels, context.device)
            columns["linear top-1"] = "linear hit"
        columns |= {f"kNN top-1 k={k}": f"kNN hit k={k}" for k in hits if k != protocol.headline_k}
        files |= label_pictures(context, found, guesses[protocol.headline_k], linear)
        measured = [Measurement(n, Statistic("mean", (c,), 100.0), True, "%") for n, c in columns.items()]
        blind = [dict.fromkeys(columns.values(), hits) for hits in blind_hits(labels, len(test.class_names))]
        return Outcome(
            samples, measured, main_metric="kNN top-1", n=len(labels), details=details, fit_s=fit_s, score_s=score_s,
            files=files, head=kept, blind=blind,
        )  # fmt: skip

    def _knn(self, context: TaskContext) -> tuple[dict[int, np.ndarray], torch.Tensor]:
        """k -> [N] classes by vote, and [N, k] the neighbours. A k larger than the training set is left out."""
        protocol, train = self.protocol, context.data["train"]
        index = GlobalVectors(context.features("train/cls"), protocol.cls)
        queries = GlobalVectors(context.features("test/cls"), protocol.cls)
        ks = [k for k in protocol.ks if k <= len(index)]
        if protocol.headline_k not in ks:
            raise DataError(
                f"the training split has {number_of(len(index), 'picture')}, fewer than k = {protocol.headline_k}. "
                "Give more pictures, or --set 'ks=[1, 5]' --set headline_k=5"
            )
        scores, found = topk_search(
            queries, index, max(ks), device=context.device,
            progress=context.progress("searching neighbours", len(queries)),
        )  # fmt: skip
        neighbours = torch.from_numpy(np.asarray(train.labels))[found]
        guesses: dict[int, list[np.ndarray]] = {k: [] for k in ks}
        for start in range(0, len(queries), BLOCK):
            rows = slice(start, start + BLOCK)
            votes = knn_votes(scores[rows], neighbours[rows], len(train.class_names), ks, protocol.temperature)
            for k in ks:
                guesses[k].append(votes[k].argmax(1).numpy())
        return {k: np.concatenate(parts) for k, parts in guesses.items()}, found


class SweepMethod(_Classification[SweptClassification]):
    """DINOv2's sweep: SGD on every source and rate at once, the best head of held-out training pictures kept."""

    schema = SweptClassification

    def view(self) -> View:
        protocol = self.protocol
        crop = protocol.crop if protocol.view == "short-side" else 0
        if protocol.interpolation == "encoder":
            return View(protocol.view, protocol.view_size, None, None, crop)
        return View(protocol.view, protocol.view_size, protocol.interpolation, True, crop)  # Pillow's, as DINOv2's

    def linear_taps(self, card: EncoderCard) -> Mapping[str, Tap]:
        taps = layer_taps(card, sources_for(card, self.protocol.blocks, self.protocol.mean_patches))
        return {f"{tap.name} of block {tap.layer}": tap for tap in taps}

    def crop_forwards(self, card: EncoderCard, shapes: Sequence[Size], train: int) -> Mapping[Size, int]:
        """Forwards of the crops the sweep is trained on."""
        protocol = self.protocol
        if not protocol.linear or protocol.augmentation == "none":
            return {}
        batch = min(protocol.batch, int((~held_out_images(train, protocol.holdout, 0)).sum()))
        side = protocol.crop or protocol.view_size
        return {(side, side): protocol.steps * batch}

    def head_steps(self) -> int:
        return self.protocol.steps

    def step_source(self, context: TaskContext) -> CropFeed | None:
        """The crops that the sweep is trained on; None where it reads stored features."""
        p, train, live = self.protocol, context.data["train"], context.encoder()
        if not p.linear or p.augmentation == "none":
            return None
        laid = resolve_view(self.view(), live.transform, live.card, train.images).transform
        sources = sources_for(context.card, p.blocks, p.mean_patches)
        trained = np.flatnonzero(~held_out_images(len(train.labels), p.holdout, context.seed))
        rows = list(batches(trained, min(p.batch, len(trained)), p.steps, context.seed))
        return CropFeed(context, train.images, laid, sources, p.cls, rows)

    def linear_head(self, context: TaskContext) -> LinearHead:
        protocol, train = self.protocol, context.data["train"]
        taps = self.linear_taps(context.card)
        train_taps, test_taps = ([context.features(f"{s}/{name}") for name in taps] for s in ("train", "test"))
        sources = sources_for(context.card, protocol.blocks, protocol.mean_patches)
        labels = torch.from_numpy(np.asarray(train.labels))
        held = held_out_images(len(labels), protocol.holdout, context.seed)
        source = self.step_source(context)
        head = fit_linear_sweep(
            {source.name: StoredVectors(train_taps, source, protocol.cls) for source in sources},
            labels,
            len(train.class_names),
            held,
            learning_rates=protocol.learning_rates,
            weight_decays=(protocol.weight_decay,),
            steps=protocol.steps,
            batch=min(protocol.batch, int((~held).sum())),
            momentum=protocol.momentum,
            seed=context.seed,
            device=context.device,
            progress=context.progress("linear sweep", protocol.steps),
            feed=partial(context.steps, source) if source else None,
            state=context.scratch / "sweep.safetensors",
        )
        best: Source = next(source for source in sources if source.name == head.source)
        chosen = {"source": head.source, "learning_rate": head.learning_rate, "weight_decay": head.weight_decay}
        details = {"linear_head": chosen, "linear_sweep": head.table}
        vectors = StoredVectors(test_taps, best, protocol.cls)
        use = {"blocks": best.blocks, "mean_patch": best.pooled, "names": list(train.class_names)}
        kept = KeptHead("labels", {"weight": head.weight, "bias": head.bias}, use)
        return LinearHead(head.logits, vectors, details, {"curve.csv": curve_file(head.curve)}, kept)

    def answer(self, head: KeptHead, encoder: Encoder, device: str, picture: np.ndarray) -> Answer:
        """Scores of the classes for the picture laid as test pictures are."""
        vector = vector_of(picture, self.view(), encoder, device, Source.of(head.use), self.protocol.cls)
        return Answer(picture, F.linear(vector, head.arrays["weight"], head.arrays["bias"]).numpy())


class VectorMethod(_Classification[VectorClassification]):
    """Logistic regression on stored vectors; the better of its sources and penalties is kept."""

    schema = VectorClassification

    def view(self) -> View:
        return View(self.protocol.view, self.protocol.view_size)

    def linear_taps(self, card: EncoderCard) -> Mapping[str, Tap]:
        return {"mean_patches": Tap("mean_patches")} if self.protocol.linear_with_patches else {}

    def head_rows(self, card: EncoderCard, train: int) -> tuple[int, int]:
        if not self.protocol.linear:
            return 0, 0
        cls = card.embed_dim * (card.num_cls if self.protocol.cls == "concat" else 1)
        return train, cls + card.embed_dim * self.protocol.linear_with_patches

    def linear_head(self, context: TaskContext) -> LinearHead:
        protocol, train = self.protocol, context.data["train"]
        cls = [context.features(f"{split}/cls") for split in ("train", "test")]
        sources = {"cls": tuple(RawVectors(reader, protocol.cls) for reader in cls)}
        if protocol.linear_with_patches:
            means = [context.features(f"{split}/mean_patches") for split in ("train", "test")]
            sources["cls+mean_patches"] = tuple(RawVectors(r, protocol.cls, mean) for r, mean in zip(cls, means))
        labels = np.asarray(train.labels)
        name, head = fit_best(
            {name: pair[0] for name, pair in sources.items()},
            labels,
            len(train.class_names),
            protocol.penalties,
            held_out_folds(len(labels), protocol.holdout, protocol.judged_images, context.seed),
            context.device,
            criterion=protocol.selection,
            seed=context.seed,
            progress=context.progress("fitting the linear head", len(protocol.penalties) * len(sources) + 1),
        )
        details = {"linear_head": {"source": name, "penalty": head.penalty}, "linear_path": head.history}
        use: dict[str, Any] = {"view": protocol.view, "view_size": protocol.view_size, "cls": protocol.cls}
        use |= {"mean_patches": name != "cls", "names": list(train.class_names)}
        kept = KeptHead("labels", {"weight": head.weight, "bias": head.bias}, use)
        return LinearHead(head.logits, sources[name][1], details, kept=kept)


METHODS: Mapping[str, type[Method[Any]]] = {"vectors": VectorMethod, "sweep": SweepMethod}
TASK = Task("classification", "labels", METHODS, trained=True)
