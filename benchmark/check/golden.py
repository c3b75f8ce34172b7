"""Golden files: features of a picture, tokens and vector of a text, as the author's own code gives them.

A safetensors file with any of these, and `text` in its metadata (docs/golden.md):
picture [H, W, 3] uint8 · cls [K, D] · patches [h, w, D] · text_patches [h, w, E] · tokens [L] · text_vector [E].
A JSON file may hold the same as nested lists, and `picture` may be the path of an image beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from benchmark.check.findings import Finding, failed, passed
from benchmark.check.image_side import ImageChecks
from benchmark.check.text_side import tokens_of
from benchmark.contracts import Encoder, ImageRequest, TextEncoder
from benchmark.errors import BenchError, DataError, UsageError
from benchmark.images import decode as pictures
from benchmark.system.files import write_bytes

IMAGE_PARTS = ("cls", "patches", "text_patches")
TEXT_PARTS = ("tokens", "text_vector")
TEXT = "A photo of two red Cars, a dog & a tree."
HEIGHT, WIDTH = 96, 144  # pixels of the written picture: not square, so that a squeeze and a crop show
# Largest distance of a feature from the golden one, relative to it: another library's resize rounds pixels to 1/255.
TOLERANCE = {"float32": 1e-2, "float16": 3e-2, "bfloat16": 1e-1}
UNSEEN = "mean and std, channel order, resize and crop, the case of texts: cannot be seen without --golden FILE"


@dataclass(frozen=True)
class Golden:
    """What a golden file holds."""

    path: Path
    parts: Mapping[str, torch.Tensor]
    text: str | None


def read_golden(path: Path) -> Golden:
    """Raises DataError naming the file for one that is not as the module says."""
    try:
        parts, text = read_json(path) if path.suffix == ".json" else read_tensors(path)
    except BenchError:
        raise
    except (OSError, SafetensorError, ValueError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: no golden file ({reason}). docs/golden.md shows one") from error
    known = {"picture", *IMAGE_PARTS, *TEXT_PARTS}
    if unknown := sorted(parts.keys() - known):
        raise DataError(f"{path}: unknown entry {unknown[0]!r}; a golden file has {', '.join(sorted(known))}, text")
    picture = parts.get("picture")
    if picture is not None and (picture.dtype != torch.uint8 or picture.ndim != 3 or picture.shape[-1] != 3):
        raise DataError(f"{path}: picture must be [H, W, 3] uint8, it is {list(picture.shape)} {picture.dtype}")
    if (picture is None) == bool(parts.keys() & set(IMAGE_PARTS)):
        raise DataError(f"{path}: a golden file has a picture and its features, or neither")
    if (text is None) == bool(parts.keys() & set(TEXT_PARTS)):
        raise DataError(f"{path}: a golden file has a text and its tokens or text_vector, or neither")
    if not parts.keys() - {"picture"}:
        raise DataError(f"{path}: nothing to compare; a golden file has {', '.join((*IMAGE_PARTS, *TEXT_PARTS))}")
    return Golden(path, parts, text)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], str | None]:
    """(tensors by name, the text they belong to) of a .safetensors file."""
    with safe_open(path, "pt") as file:
        names = file.keys()
        return {name: file.get_tensor(name) for name in names}, (file.metadata() or {}).get("text")


def read_json(path: Path) -> tuple[dict[str, torch.Tensor], str | None]:
    """(tensors by name, the text they belong to) of a JSON file; a picture's path counts from it."""
    data = json.loads(path.read_text(encoding="utf-8"))
    text, picture = data.pop("text", None), data.pop("picture", None)
    parts = {name: torch.tensor(values) for name, values in data.items()}
    if isinstance(picture, str):
        parts["picture"] = torch.from_numpy(np.array(pictures.decode(path.parent / picture)))
    elif picture is not None:
        parts["picture"] = torch.tensor(picture, dtype=torch.uint8)
    return parts, text


def golden_findings(checks: ImageChecks, golden: Golden) -> list[Finding]:
    """One finding for each entry of the file that the encoder has a counterpart of, and for each it lacks."""
    findings = []
    found = of_picture(checks, golden.parts["picture"]) if "picture" in golden.parts else {}
    if golden.text is not None:
        found |= of_text(checks.encoder, golden.text)
    limit = TOLERANCE.get(checks.encoder.card.dtype, 1e-2)
    for part, expected in golden.parts.items():
        if part == "picture":
            continue
        name = f"golden {part}"
        if part not in found:
            findings.append(failed(name, "absent", f"{golden.path} has {part}, the encoder gives none"))
        elif part == "tokens":
            findings.append(same_tokens(name, found[part], expected, golden.text))
        else:
            findings.append(near(name, found[part], expected, limit))
    return findings


def same_tokens(name: str, found: torch.Tensor, expected: torch.Tensor, text: str | None) -> Finding:
    """Whether the tokens are the author's, padding aside, and the first that is not."""
    ids, wanted = found.flatten().tolist(), expected.flatten().tolist()
    short = min(len(ids), len(wanted))  # one of them may be padded to a fixed length
    rest = {*ids[short:], *wanted[short:]}
    if ids[:short] != wanted[:short] or len(rest) > 1:
        where = next((i for i, (a, b) in enumerate(zip(ids, wanted)) if a != b), short)
        why = f"token {where} of {text!r} differs from the author's: lower case, cleaning, another tokenizer's files?"
        return failed(name, f"{ids[: where + 1][-8:]}", why)
    return passed(name, f"{short} ids of {text!r}")


def near(name: str, found: torch.Tensor, expected: torch.Tensor, limit: float) -> Finding:
    """Distance relative to the golden array, in maps also to how it varies over the picture."""
    if found.shape != expected.shape:
        return failed(name, str(list(found.shape)), f"the author's has {list(expected.shape)}: size, crop or layer?")
    a, b = found.double().cpu(), expected.double()
    gap = float((a - b).norm() / b.norm().clamp_min(1e-12))
    if b.ndim == 3:
        gap = max(gap, float((a - b).norm() / (b - b.mean((0, 1))).norm().clamp_min(1e-12)))
    value = f"{gap:.1e} from the author's"
    if gap <= limit:
        return passed(name, value)
    why = "the tokenizer, or the case of the text?"
    if name != "golden text_vector":
        why = "mean and std, channel order, range of the pixels, resize and crop, or layer and norm?"
    return failed(name, value, why)


def of_picture(checks: ImageChecks, picture: torch.Tensor) -> dict[str, torch.Tensor]:
    """CLS [K, D] and maps [h, w, …] of one picture, by the encoder's own transform."""
    encoder = checks.encoder
    pixels = torch.from_numpy(pictures.apply_transform(picture.numpy(), encoder.transform))[None].to(checks.device)
    features = checks.encode(pixels, ImageRequest(text_patches=encoder.card.has_text_patches))
    found = {name: getattr(features, name) for name in IMAGE_PARTS}
    return {name: array[0].float().cpu() for name, array in found.items() if array is not None}


def of_text(encoder: Encoder, text: str) -> dict[str, torch.Tensor]:
    """Tokens [L], where the encoder shows them, and vector [E] of a text."""
    found: dict[str, torch.Tensor] = {}
    if (tokens := tokens_of(encoder, text)) is not None:
        found["tokens"] = torch.tensor(tokens)
    if encoder.card.has_text and isinstance(encoder, TextEncoder):
        with torch.inference_mode():
            found["text_vector"] = encoder.encode_text([text])[0].float().cpu()
    return found


def write_golden_of(encoder: Encoder, device: str, path: Path) -> None:
    """The golden file of an encoder that is known to be right. Raises UsageError for another suffix."""
    if path.suffix != ".safetensors":
        raise UsageError(f"--write-golden {path}: it writes safetensors. Name it {path.with_suffix('.safetensors')}")
    coarse = torch.rand(1, 3, 6, 9, generator=torch.Generator().manual_seed(17))
    noise = torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(18))
    tint = torch.tensor([1.0, 0.7, 0.4]).view(1, 3, 1, 1)  # red before blue
    mixed = (0.85 * F.interpolate(coarse, (HEIGHT, WIDTH), mode="nearest") + 0.15 * noise) * tint
    picture = mixed[0].permute(1, 2, 0).mul(255).round().to(torch.uint8)
    parts = {"picture": picture, **of_picture(ImageChecks(encoder, device), picture)}
    metadata = {"encoder": encoder.card.name}
    if texts := of_text(encoder, TEXT):
        parts |= texts
        metadata["text"] = TEXT
    write_bytes(path, save({name: array.clone().contiguous() for name, array in parts.items()}, metadata))
