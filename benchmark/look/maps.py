"""What an encoder sees in one picture: PCA of its patch features, a heat map for each text, the argmax segmentation."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate, normalize

from benchmark.contracts import Encoder, EncoderExtras, ImageRequest, ImageSet, TextEncoder, View
from benchmark.contracts.prompts import as_prompts
from benchmark.engine.loading import device_of
from benchmark.errors import EncoderError
from benchmark.images.drawing import palette_for
from benchmark.images.views import resolve_view

HEAT = "viridis"
OVERLAY = 0.6  # weight of a map over the grey picture


@dataclass(frozen=True)
class Look:
    """The maps of one model, on its own patch grid h × w."""

    model: str
    pca: np.ndarray  # [h, w, 3] in [0, 1]
    explained: float  # share of the variance in the three components
    heat: np.ndarray | None  # [C, h, w] cosine of each text; None without a text tower or texts
    why_no_text: str = ""


class _OnePicture(ImageSet):
    """The picture as the image set that a view is resolved for."""

    def __init__(self, image: np.ndarray) -> None:
        self.image = image
        self.uniform_shape = (image.shape[0], image.shape[1])

    @property
    def digest(self) -> str:
        return ""

    def __len__(self) -> int:
        return 1

    def image_id(self, index: int) -> str:
        return "picture"

    def load(self, index: int) -> np.ndarray:
        return self.image


def look(encoder: Encoder, image: np.ndarray, texts: Sequence[str] = (), size: int = 0) -> Look:
    """The maps of `image` [H, W, 3] uint8, stretched to size × size as the dense tasks do (0: the encoder's own size).

    Raises EncoderError when the features are not finite.
    """
    card = encoder.card
    view = resolve_view(View("square", size), encoder.transform, card, _OnePicture(image))
    wants_text = bool(texts) and card.has_text and card.has_text_patches and isinstance(encoder, TextEncoder)
    device = device_of(encoder)
    pixels = torch.from_numpy(view.lay(image))[None].to(device)
    with torch.inference_mode():
        features = encoder.encode_image(pixels, ImageRequest(text_patches=wants_text))
        patches = features.patches[0].float().cpu()
        heat = None
        if wants_text and features.text_patches is not None and isinstance(encoder, TextEncoder):
            words = normalize(encoder.encode_text(as_prompts(card, texts)).float().cpu(), dim=-1)
            if made := EncoderExtras.of(encoder).text_for_patches:
                words = made(words)
            tokens = normalize(features.text_patches[0].float().cpu(), dim=-1)
            heat = torch.einsum("hwe,ce->chw", tokens, words).numpy()
    if not torch.isfinite(patches).all():
        raise EncoderError(f"{card.name}: patch features hold NaN or infinity. Run bench check --model {card.name}")
    rgb, explained = pca(patches.numpy())
    why = "" if heat is not None or not texts else "no text tower" if not card.has_text else "no patches in text space"
    return Look(card.name, rgb, explained, heat, why)


def pca(patches: np.ndarray) -> tuple[np.ndarray, float]:
    """[h, w, D] -> ([h, w, 3] in [0, 1], share of variance): the first three components between their 2nd and 98th
    percentiles; each component's sign is that of its largest loading, so equal features give equal colours."""
    from sklearn.decomposition import PCA  # slow to import, and only pictures need it

    h, w, d = patches.shape
    flat = patches.reshape(-1, d).astype(np.float64)
    kept = min(3, d, h * w)
    scores, explained = np.zeros((h * w, 3)), 0.0
    if np.ptp(flat, 0).any():  # equal patches have no direction of their own
        found = PCA(kept, svd_solver="full").fit(flat)
        axes = found.components_
        signs = np.sign(axes[np.arange(kept), np.abs(axes).argmax(1)])
        scores[:, :kept] = found.transform(flat) * signs
        explained = float(found.explained_variance_ratio_.sum())
    low, high = np.percentile(scores, [2, 98], axis=0)
    spread = high - low
    rounding = spread <= 1e-6 * spread.max(initial=0.0)  # a component without variance stays dark: no noise is shown
    rgb = np.where(rounding, 0.0, np.clip((scores - low) / np.where(rounding, 1.0, spread), 0, 1))
    return rgb.reshape(h, w, 3), explained


def enlarge(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """[C, h, w] to [C, height, width], bilinear, as the dense tasks score them."""
    tensor = torch.from_numpy(np.ascontiguousarray(maps, dtype=np.float32))[None]
    return interpolate(tensor, size=(height, width), mode="bilinear", align_corners=False)[0].numpy()


def sheet(image: np.ndarray, looks: Sequence[Look], texts: Sequence[str]) -> bytes:
    """One PNG: a row for each model; picture, PCA, a heat map for each text, the argmax over the texts."""
    from matplotlib.figure import Figure

    columns = 2 + len(texts) + (len(texts) > 1)
    tall = image.shape[0] / image.shape[1]
    legend = 0.18 * ((len(texts) + 1) // 2) if len(texts) > 1 else 0.0
    figure = Figure(figsize=(2.5 * columns, (2.5 * tall + 0.45 + legend) * len(looks)), dpi=130, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.04)  # type: ignore[union-attr, call-arg]
    axes = figure.subplots(len(looks), columns, squeeze=False)
    for line, found in zip(axes, looks):
        _model_row(line, image, found, texts)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _model_row(axes: Any, image: np.ndarray, found: Look, texts: Sequence[str]) -> None:
    for axis in axes:
        axis.set_axis_off()
    height, width = image.shape[:2]
    axes[0].imshow(image)
    axes[0].set_title(found.model, fontsize=9, fontweight="bold", loc="left")
    axes[1].imshow(enlarge(found.pca.transpose(2, 0, 1), height, width).transpose(1, 2, 0).clip(0, 1))
    axes[1].set_title(f"PCA, {100 * found.explained:.0f} % of variance", fontsize=8, loc="left")
    if found.heat is None:
        if found.why_no_text:
            axes[2].text(0.5, 0.5, found.why_no_text, ha="center", va="center", fontsize=8, transform=axes[2].transAxes)
        return
    heat = enlarge(found.heat, height, width)
    grey = np.repeat(image.mean(2, keepdims=True) / 255, 3, axis=2)
    for axis, text, values in zip(axes[2:], texts, heat):
        axis.imshow(_blend(grey, _colours(values, heat.min(), heat.max())))
        axis.set_title(f"“{text}”  {values.max():.2f}", fontsize=8, loc="left")
    if len(texts) > 1:
        labels = heat.argmax(0)
        axes[-1].imshow(_blend(grey, palette_for(len(texts))[labels] / 255))
        axes[-1].set_title("argmax", fontsize=8, loc="left")
        _legend(axes[-1], texts)


def _blend(grey: np.ndarray, colour: np.ndarray) -> np.ndarray:
    return (1 - OVERLAY) * grey + OVERLAY * colour


def _colours(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """[H, W, 3]; one scale for all texts of a model, so that maps can be compared."""
    from matplotlib import colormaps

    return np.asarray(colormaps[HEAT]((values - low) / max(high - low, 1e-12)))[..., :3]


def _legend(axis: Any, texts: Sequence[str]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=tuple(c / 255)) for c in palette_for(len(texts))]
    below = {"loc": "upper left", "bbox_to_anchor": (-0.02, 0.0), "ncols": 2 if len(texts) > 2 else 1}
    axis.legend(
        handles, list(texts), fontsize=7, frameon=False, handlelength=1, columnspacing=1, borderpad=0.2, **below
    )


def look_at(
    path: Path, models: Sequence[str], texts: Sequence[str], size: int = 0, weights: str | None = None, **options: Any
) -> bytes:
    """The sheet of the picture at `path` for `models`, loaded one after the other; `options` go to open_encoder."""
    from benchmark.engine.loading import open_encoder
    from benchmark.images.decode import decode

    image = decode(path)
    looks = [look(open_encoder(name, weights=weights, **options), image, texts, size) for name in models]
    return sheet(image, looks, texts)
