"""C-RADIOv4 (Ranzinger et al. 2026) with the texts of its teacher SigLIP 2 g: timm's tower, adaptor, text tower.

What surprises:

- The adaptor of one teacher has two heads. Its summary head turns the token of that teacher into the vector that the
  teacher's texts are compared with: `cls`, [1, E]. Its feature head makes the teacher's patches of before their
  attention pool, which texts are not compared with: it is not read.
- Patches in text space are the summary head on every patch, as RADSeg (Alama et al. 2025) segments with RADIO.
- Texts are canonicalised whatever the task, captions too: the authors' tokenizer does it.
- Dense probes read RADIO's own patches, those of `c-radio-v4-…`.

Source: NVlabs/RADIO c0f3701 (hubconf, adaptor_generic, adaptor_mlp, siglip2_adaptor), RADSeg-OVSS/RADSeg 05ec86f.
Status: confirmed for the layers; inferred for the names in the release's files (`_heads.siglip2-g.`, the MLP called v2,
SigLIP 2 g as the first teacher, whose token is the first), which public code that loads them states, and which were not
read from the files themselves: the converting command asserts the teacher, and a file of other names gets one line.
Raise this module's version, too, where timm_models or siglip's tokens give other outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import SiglipModel

from adapters.extras import import_extra
from adapters.siglip import tokenizer
from adapters.state_dicts import PICKLED as TORCH_SAVED
from adapters.state_dicts import Tensors, read_tensors
from adapters.timm_models import TimmEncoder, create, load_file
from adapters.vit import load_pretrained, normalise_rows
from adapters.weights_files import check_file, locate
from benchmark.contracts import ImageFeatures, ImageRequest, ModelSpec, WeightsInfo
from benchmark.contracts.prompts import canonical
from benchmark.errors import UsageError, WeightsError
from benchmark.registry import code_versions
from benchmark.system.digest import fingerprint, sha256_file

HEAD = "_heads.siglip2-g."
PICKLED = (*TORCH_SAVED, ".tar")
PARTS = {"naflexvit*": "timm's image tower", "c-radio*": "the authors' adaptor"}


class Adaptor(nn.Module):
    """The authors' MLP called v2, [..., D] to [..., E]: its sizes are those of the tensors."""

    def __init__(self, state: Tensors) -> None:
        super().__init__()
        (hidden, width), out = state["fc1.weight"].shape, state["final.2.weight"].shape[0]
        self.fc1 = nn.Linear(width, hidden)
        count = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
        self.blocks = nn.ModuleList(layer(hidden, hidden) for _ in range(count))
        self.final = layer(hidden, out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fc1(x)
        for block in self.blocks:
            x = x + block(x)
        found: torch.Tensor = self.final(x)
        return found


def layer(width: int, out: int) -> nn.Sequential:
    """[..., `width`] to [..., `out`]."""
    return nn.Sequential(nn.LayerNorm(width), nn.GELU(), nn.Linear(width, out))


class RadioTexts(TimmEncoder):
    """CLS is the adapted summary [1, E]; patches are RADIO's own [h, w, D]."""

    def __init__(
        self, spec: ModelSpec, model: Any, data: dict[str, Any], weights: WeightsInfo, adaptor: Adaptor, siglip: Any
    ) -> None:
        super().__init__(spec, model, data, weights)
        self.adaptor = adaptor.to(self.device, self.dtype).eval().requires_grad_(False)
        self.text = siglip.text_model.to(self.device, self.dtype).eval().requires_grad_(False)
        text: Any = siglip.config.text_config
        self.tokens_of = tokenizer(Path(str(spec.weights)), spec.name, text.max_position_embeddings)
        parts = (model, self.adaptor, self.text)
        self.card = replace(
            self.card,
            has_text=True, has_text_patches=True, text_dim=int(text.projection_size),
            prompts="canonical", code_version=code_versions()[__name__],
            params=sum(p.numel() for part in parts for p in part.parameters()),
        )  # fmt: skip

    @torch.inference_mode()
    def encode_image(self, images: torch.Tensor, request: ImageRequest = ImageRequest()) -> ImageFeatures:
        """CLS [B, 1, E], patches [B, h, w, D], in text space [B, h, w, E]. Raises UsageError for unknown layers."""
        found = super().encode_image(images, request)
        found.text_patches = self.adapted(found.patches) if request.text_patches else None
        found.cls = self.adapted(found.cls)
        return found

    def adapted(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens [..., D] in the space of the texts [..., E], float32."""
        out: torch.Tensor = self.adaptor(tokens.to(self.dtype))
        return out.float()

    def tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        """[N, 64] ids, padded on the right without a mask."""
        ids: torch.Tensor = self.tokens_of([canonical(text) for text in texts])
        return ids

    def is_cut(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text is longer than the tokens that are read, its end token among them."""
        return [length > self.tokens_of.length for length in self.tokens_of.lengths([canonical(t) for t in texts])]

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        """[N, E] float32, L2-normalised."""
        return normalise_rows(self.text(input_ids=self.tokenize(texts).to(self.device)).pooler_output)


def build(spec: ModelSpec) -> RadioTexts:
    """Raises MissingExtra, UsageError, or WeightsError where a file is missing, damaged or of another model."""
    if spec.backend != "torch":
        raise UsageError(f"{spec.name} has no {spec.backend} backend. Use --backend torch")
    how = f"bench show {spec.name} says how to put the three together"
    if spec.weights is None or not Path(spec.weights).is_dir():
        raise WeightsError(
            f"{spec.name}: its adaptor is on no hub as safetensors. Give --weights FOLDER with "
            f"{', '.join(PARTS.values())} and {spec.row['text']}; {how}"
        )
    timm = import_extra("timm", "timm", f"--model {spec.name}")
    folder = Path(spec.weights)
    tower, heads = (part_of(folder, name, spec.name, how) for name in PARTS)
    checkpoint = locate(replace(spec, target=str(spec.row["text"])))
    model = create(spec, timm)
    load_file(model, spec, tower)
    adaptor, siglip = adaptor_of(heads, spec.name), load_pretrained(SiglipModel, checkpoint, spec.name)
    wants, gives = adaptor.fc1.in_features, model.num_features
    space, texts = adaptor.final[2].out_features, siglip.config.text_config.projection_size
    if wants != gives or space != texts:
        raise WeightsError(
            f"{spec.name}: {heads} makes {space} values of {wants}, where the tower has {gives} and a text {texts}. "
            "Take the three of one model"
        )
    own = {path.name: sha256_file(path) for path in (tower, heads)}
    weights = WeightsInfo(str(folder), fingerprint([spec.target, checkpoint.weights.sha256, own]))
    return RadioTexts(spec, model, timm.data.resolve_model_data_config(model), weights, adaptor, siglip)


def part_of(folder: Path, name: str, model: str, how: str) -> Path:
    """The one .safetensors file of `folder` whose name fits. Raises WeightsError."""
    found = sorted(folder.glob(f"{name}.safetensors"))
    for pickled in () if found else (path for path in sorted(folder.glob(name)) if path.suffix in PICKLED):
        raise WeightsError(
            f"{model}: {pickled} is a pickle, which can run code and is never opened. bench show {model} has the "
            "command that converts it"
        )
    if len(found) != 1:
        raise WeightsError(
            f"{model}: {len(found) or 'no'} {name}.safetensors ({PARTS[name]}) in {folder}, expected one. {how}"
        )
    check_file(found[0], model)
    return found[0]


def adaptor_of(path: Path, model: str) -> Adaptor:
    """The summary head in the authors' names. Raises WeightsError naming what is missing or of another shape."""
    tensors = read_tensors([path])
    state = {name.removeprefix(HEAD): tensor for name, tensor in tensors.items() if name.startswith(HEAD)}
    try:
        adaptor = Adaptor(state)
        adaptor.load_state_dict(state)
    except (KeyError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise WeightsError(
            f"{model}: {path} holds no summary head {HEAD}* of the authors' MLP v2 ({reason}; it begins with "
            f"{next(iter(tensors), 'nothing')}). bench show {model} says how to convert it"
        ) from None
    return adaptor
