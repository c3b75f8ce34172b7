"""What `bench plan` plans with when weights or data are not here: a model's card and speed, a dataset's counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmark.contracts import (
    EncoderCard,
    ImageFeatures,
    ImageRequest,
    ImageSet,
    ImageTransform,
    WeightsInfo,
)
from benchmark.errors import DataError
from benchmark.registry import datasets, models
from benchmark.system.digest import fingerprint

HEAD_WIDTH = 64  # of every transformer here but the smallest
SHAPE = (480, 640)  # what an absent picture is taken to measure, in pixels


class RandomBlock:
    """An encoder by its row in models.toml: one random transformer block in place of `blocks` equal ones.

    It says what a forward costs and nothing else. A network without equal blocks (ConvNeXt, FastViT) counts as the
    blocks of its width that its parameters would make.
    """

    def __init__(self, name: str, device: str) -> None:
        row = models()[name]
        facts = {
            k: row[k] for k in ("embed_dim", "patch_size", "image_size", "depth", "num_cls", "has_text", "licence")
        }
        digest = fingerprint({"plan": name, "row": {k: v for k, v in row.items() if k != "entry_point"}})
        self.card = EncoderCard(
            name, row["family"], "torch", weights=WeightsInfo("not here", digest), text_dim=row.get("text_dim", 0),
            has_text_patches=row.get("has_text_patches", False), has_raw_layers=row["depth"] > 0,
            params=row.get("params", 0), **facts,
        )  # fmt: skip
        asked = {
            k: v
            for k, v in row.get("transform", {}).items()
            if k in ("resize", "size", "crop", "rounding", "interpolation")
        }
        self.transform = ImageTransform(**{"resize": "square", "size": self.card.image_size, **asked})
        self.device, self.tokens = device, self.card.num_cls
        width = self.card.embed_dim
        self.blocks = self.card.depth or max(1, round(self.card.params / (12 * width**2)))
        self.block = torch.nn.TransformerEncoderLayer(
            width, max(1, width // HEAD_WIDTH), 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        ).to(device)
        self.block.eval()

    def encode_image(self, images: torch.Tensor, request: ImageRequest = ImageRequest()) -> ImageFeatures:
        """The features of one block; a whole forward takes `blocks` times as long."""
        height, width = (side // self.card.patch_size for side in images.shape[2:])
        x = torch.zeros(len(images), self.tokens + height * width, self.card.embed_dim, device=images.device)
        x = self.block(x)
        patches = x[:, self.tokens :].reshape(len(images), height, width, -1)
        return ImageFeatures(x[:, : self.tokens], patches)


@dataclass(frozen=True)
class AbsentPictures(ImageSet):
    """`n` pictures that are not on this machine."""

    source: str
    n: int
    cheap: bool = True

    @property
    def digest(self) -> str:
        return fingerprint({"absent": self.source, "n": self.n})

    def __len__(self) -> int:
        return self.n

    def image_id(self, index: int) -> str:
        return f"{self.source}/{index}"

    def load(self, index: int) -> np.ndarray:
        raise DataError(f"{self.source}: not on this machine")


@dataclass(frozen=True)
class AbsentData:
    """A split as the catalogue counts it: enough for a task to say what it needs."""

    images: AbsentPictures
    queries: AbsentPictures
    index: AbsentPictures

    @property
    def digest(self) -> str:
        return self.images.digest

    def __len__(self) -> int:
        return len(self.images)

    def pictures(self) -> Mapping[str, AbsentPictures]:
        return {"images": self.images}


def absent_data(
    dataset: str, kind: str, split: str, limit: int | None, options: Mapping[str, str]
) -> AbsentData | None:
    """The split's counts in the catalogue (of `options`' training list where there are several); None without them.

    Datasets that are fetched from the same place are the same pictures.
    """
    row: Mapping[str, Any] = datasets()[dataset]
    counts = {**row.get("rough_counts", {}), **row.get("counts", {})}
    names = (f"{split}_{kind}", options.get("train", "") if split == "train" else "", split)
    key = next((name for name in names if name in counts), None)
    if key is None:
        return None
    source = f"{[f['url'] for f in row.get('fetch', [])] or dataset} {key}"
    most = counts[key] if limit is None else min(limit, counts[key])
    pictures = AbsentPictures(source, most)
    if f"{key}_index" not in counts or counts[f"{key}_index"] == counts[key]:
        return AbsentData(pictures, pictures, pictures)
    indexed = counts[f"{key}_index"]
    return AbsentData(
        pictures, pictures, AbsentPictures(f"{source} index", indexed if limit is None else min(limit, indexed))
    )
