"""Pictures with labels: do features beat chance and the `pixels` floor, and would other pixels or signs do better?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F

from benchmark.check.findings import Finding, failed, passed
from benchmark.check.image_side import ImageChecks
from benchmark.contracts import Encoder, ImageRequest, LabelData, ModelSpec, TextEncoder
from benchmark.contracts.prompts import as_prompts
from benchmark.images import decode as pictures
from benchmark.registry import build_encoder

BATCH = 16
FEW = 48  # pictures that are encoded again in other ways
SIGMAS = 4.0  # of a paired difference, and ...
POINTS = 0.25  # ... least gain in hits, from which another way of reading pictures or signs is the better one
TRAINED = 0.2  # hits of 1-NN above those of `pixels`, from which an image tower has surely been trained
PROMPT = "a photo of a {}"

# What `encode_image` may get wrong, undone: pictures as they would have to come in. Mean and deviation are ImageNet's
# and that of pixels in [-1, 1]; the other published ones are close to these.
NORMALISATIONS = {
    "ImageNet's": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "0.5": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def undone() -> Mapping[str, Callable[[torch.Tensor], torch.Tensor]]:
    """A likely fault in words -> the change of pixels [B, 3, H, W] that makes up for it."""
    changes: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "red and blue are swapped: does the adapter read BGR?": lambda x: x.flip(1),
        "the pixels are multiplied by 255: they come in [0, 1]": lambda x: x / 255,
        "the pixels are divided by 255: they come in [0, 1]": lambda x: x * 255,
    }
    for name, values in NORMALISATIONS.items():
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in values)
        changes[f"mean and std ({name}) are missing: normalise in encode_image"] = (
            lambda x, mean=mean, std=std: (x - mean.to(x)) / std.to(x)  # type: ignore[misc]
        )
        changes[f"mean and std ({name}) are applied, but not the model's: take its own"] = (
            lambda x, mean=mean, std=std: x * std.to(x) + mean.to(x)  # type: ignore[misc]
        )
    return changes


@dataclass(frozen=True)
class Labelled:
    """Checks of one encoder on `count` pictures of one class each."""

    checks: ImageChecks
    data: LabelData
    count: int = 256
    seed: int = 0

    @cached_property
    def chosen(self) -> np.ndarray:
        return np.sort(np.random.default_rng(self.seed).permutation(len(self.data.images))[: self.count])

    @cached_property
    def labels(self) -> np.ndarray:
        labels: np.ndarray = np.asarray(self.data.labels)[self.chosen]
        return labels

    def batches(self, encoder: Encoder, count: int) -> list[torch.Tensor]:
        """The first `count` pictures as `encoder` takes them, in batches [B, 3, H, W]."""
        found = []
        for start in range(0, min(count, len(self.chosen)), BATCH):
            part = [self.data.images.picture(int(i)) for i in self.chosen[start : min(start + BATCH, count)]]
            rows = np.stack([pictures.apply_transform(picture, encoder.transform) for picture in part])
            found.append(torch.from_numpy(rows).to(self.checks.device))
        return found

    @cached_property
    def cls(self) -> torch.Tensor:
        """[N, K, D] of all pictures."""
        encoder = self.checks.encoder
        rows = [self.checks.encode(batch).cls.float().cpu() for batch in self.batches(encoder, self.count)]
        return F.normalize(torch.cat(rows), dim=-1)

    @cached_property
    def texts(self) -> torch.Tensor | None:
        """[C, E] of the class names; None without a text tower."""
        encoder = self.checks.encoder
        if not (encoder.card.has_text and isinstance(encoder, TextEncoder)):
            return None
        with torch.inference_mode():
            texts = as_prompts(encoder.card, [PROMPT.format(name) for name in self.data.class_names])
            return encoder.encode_text(texts).float().cpu()

    @property
    def base(self) -> float:
        """The largest class's share."""
        return float(np.bincount(self.labels).max() / len(self.labels))

    @property
    def twin(self) -> float:
        """The share of hits of a neighbour drawn at random."""
        return float(np.square(np.bincount(self.labels) / len(self.labels)).sum())

    def above(self, base: float) -> float:
        """The share of hits that is above `base` by three standard errors."""
        return base + 3 * float(np.sqrt(base * (1 - base) / len(self.labels)))

    def neighbours(self, cls: torch.Tensor) -> np.ndarray:
        """[N] whether the nearest other picture by CLS has the same label."""
        rows = F.normalize(cls.flatten(1), dim=-1)
        similarity = rows @ rows.T
        similarity.fill_diagonal_(-2)
        labels = self.labels[: len(rows)]
        return np.asarray(labels[similarity.argmax(dim=1).numpy()] == labels)

    def named(self, vectors: torch.Tensor, sign: float = 1.0) -> np.ndarray:
        """[N] whether the class name next to a picture's vector [N, K, E] is its own, by the best of its K."""
        assert self.texts is not None
        scores = sign * vectors @ self.texts.T  # [N, K, C]
        hits = scores.argmax(-1).numpy() == self.labels[: len(vectors), None]
        return np.asarray(hits[:, hits.mean(0).argmax()])

    @cached_property
    def hits(self) -> float:
        """Leave-one-out nearest neighbour on CLS."""
        return float(self.neighbours(self.cls).mean())

    @cached_property
    def floor(self) -> float:
        """The same of the `pixels` floor."""
        encoder = build_encoder(ModelSpec("pixels", device=self.checks.device))
        with torch.inference_mode():
            rows = [encoder.encode_image(batch).cls.float().cpu() for batch in self.batches(encoder, self.count)]
        return float(self.neighbours(torch.cat(rows)).mean())

    def chance(self) -> Finding:
        """Nearest neighbours against chance, and the `pixels` floor."""
        hits = self.hits
        value = f"1-NN {100 * hits:.1f} %, chance {100 * self.twin:.1f} %"
        if hits <= self.above(self.twin):  # random weights are above it
            return failed("above chance", value, "CLS knows nothing: wrong normalisation, unloaded weights?")
        value += f", pixels {100 * self.floor:.1f} %"
        if hits < self.floor:
            return Finding("above chance", True, value, "below colour and place alone: are the weights untrained?")
        return passed("above chance", value)

    def zero_shot(self) -> list[Finding]:
        """The class's name is not further from its pictures than the names of the others."""
        if self.texts is None:
            return []
        findings = [self.sign("zero-shot", self.cls, "cls and encode_text point apart: has one the wrong sign?")]
        if self.checks.encoder.card.has_text_patches:
            rows = []
            for batch in self.batches(self.checks.encoder, FEW * 2):
                found = self.checks.encode(batch, ImageRequest(text_patches=True)).text_patches
                if found is None:
                    return findings
                rows.append(F.normalize(found.float().cpu(), dim=-1).mean((1, 2))[:, None])
            why = "text_patches and encode_text point apart: have the patches the wrong sign?"
            findings.append(self.sign("patches and texts", torch.cat(rows), why))
        return findings

    def sign(self, name: str, vectors: torch.Tensor, why: str) -> Finding:
        """Hits by name, against those of the mirror image of the vectors."""
        plain, mirror = self.named(vectors), self.named(vectors, -1.0)
        value = f"{100 * plain.mean():.1f} %, mirror image {100 * mirror.mean():.1f} %, chance {100 * self.base:.1f} %"
        if better(mirror, plain):
            return failed(name, value, why)
        if plain.mean() <= self.above(self.base):
            if self.hits >= self.floor + TRAINED and vectors is self.cls:
                why = "CLS tells pictures apart, texts do not name them: another tokenizer, or texts in another case?"
                return failed(name, value, why)
            why = "no better than chance: untrained weights or other concepts, else the tokenizer or the case of texts?"
            return Finding(name, True, value, why)
        return passed(name, value)

    def inputs(self) -> Finding:
        """Pictures as they are do not fare worse than pictures that make up for a likely fault."""
        name, encoder = "pixels as they are", self.checks.encoder
        batches = self.batches(encoder, FEW)

        def hits(change: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
            rows = [self.checks.encode(change(batch)).cls.float().cpu() for batch in batches]
            cls = F.normalize(torch.cat(rows), dim=-1)
            return self.neighbours(cls) if self.texts is None else self.named(cls)

        plain = hits(lambda x: x)
        best, why = max(((hits(change), why) for why, change in undone().items()), key=lambda pair: pair[0].mean())
        value = f"{100 * plain.mean():.0f} %, changed {100 * best.mean():.0f} % at best"
        return failed(name, value, why) if better(best, plain) else passed(name, value)


def better(one: np.ndarray, two: np.ndarray) -> bool:
    """Whether hits `one` are better than hits `two` of the same pictures, beyond doubt."""
    only_one, only_two = int((one & ~two).sum()), int((two & ~one).sum())
    gain = only_one - only_two
    return gain >= POINTS * len(one) and gain > SIGMAS * float(np.sqrt(only_one + only_two))
