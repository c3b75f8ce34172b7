"""TIPSv2 and TIPS in JAX behind the Encoder interface; tensors cross in both directions through DLPack, uncopied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.utils.dlpack

from adapters.patches import center_pad, resolve_layers, to_map
from adapters.tipsv2 import jax_model as model
from adapters.tipsv2.card import card_of, choice, transform_of
from adapters.tipsv2.checkpoint import Checkpoint, load
from adapters.tipsv2.scenic import to_scenic
from adapters.tipsv2.tokenizer import PAD, Tokenizer
from adapters.tipsv2.variants import TEXT_EPSILON
from benchmark.contracts import ImageFeatures, ImageRequest, LayerFeatures, ModelSpec
from benchmark.errors import UsageError

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float16": jnp.float16}
SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
TEXT_BATCH = 256


class TipsJax:
    """An Encoder with a text tower. `temperature` is what a cosine is divided by, None where the weights do not say."""

    def __init__(self, spec: ModelSpec) -> None:
        self.gelu = choice(spec, "gelu", TEXT_EPSILON, "tanh")
        self.epsilon = TEXT_EPSILON[self.gelu]
        self.device = pick_device(spec.device)
        dtype = pick_dtype(spec.dtype, self.device)
        checkpoint = load(spec)
        trees = {part: self._tree(checkpoint, part, DTYPES[dtype]) for part in ("vision", "text")}
        self.vision, self.text = trees["vision"]["encoder"], trees["text"]
        self.vision_blocks = model.blocks_of(self.vision["transformer"])
        self.text_blocks = model.blocks_of(self.text["transformer"])
        self.tokenizer = Tokenizer(checkpoint.tokenizer, checkpoint.arch.vocabulary, checkpoint.arch.max_tokens)
        self.temperature = None if checkpoint.temperature is None else float(checkpoint.temperature)
        self.card = card_of(spec, checkpoint, "jax", dtype, self.gelu)
        self.transform = transform_of(self.card.image_size)

    def encode_image(self, images: torch.Tensor, request: ImageRequest = ImageRequest()) -> ImageFeatures:
        """cls [B, 2, D] and patches [B, h, w, D], float32, after the final norm. Sides are padded to whole patches."""
        wanted = resolve_layers(request.layers, self.card.depth, self.card.name)
        images = center_pad(images.float(), self.card.patch_size)
        height, width = (side // self.card.patch_size for side in images.shape[-2:])

        def split(tokens: jax.Array, norm: bool = True) -> LayerFeatures:
            whole = model.final_norm(self.vision["encoder_norm"], tokens) if norm else tokens
            whole = to_torch(whole)  # [B, 2+h*w, D]
            return LayerFeatures(whole[:, :2], to_map(whole[:, 2:], height, width))

        x = model.embed_image(self.vision["ToTokenSequence_0"], to_jax(images, self.device))
        kept: dict[int, LayerFeatures] = {}
        values = None
        for i, block in enumerate(self.vision_blocks):
            if request.text_patches and i == self.card.depth - 1:
                values = split(model.value_block(block, x, gelu=self.gelu)).patches
            x = model.image_block(block, x, gelu=self.gelu)
            if i in wanted:
                kept[i] = split(x, request.final_norm)
        last = kept.get(self.card.depth - 1) if request.final_norm else None
        last = last or split(x)
        return ImageFeatures(last.cls, last.patches, tuple(kept[i] for i in wanted), values)

    def is_cut(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text is longer than what is read of it."""
        return self.tokenizer.is_cut(texts)

    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        """[N, E] float32, L2-normalised."""
        rows = [self._text(texts[i : i + TEXT_BATCH]) for i in range(0, len(texts), TEXT_BATCH)]
        return torch.cat(rows) if rows else torch.zeros(0, self.card.text_dim)

    def _text(self, texts: Sequence[str]) -> torch.Tensor:
        ids = self.tokenizer(texts)
        rows = 1 << (len(ids) - 1).bit_length()  # powers of two: at most nine batch sizes are ever compiled
        ids = np.concatenate([ids, np.full((rows - len(ids), ids.shape[1]), PAD, ids.dtype)])
        mask = ids != PAD
        mask[:, 0] |= ~mask.any(1)  # an empty text is one padding token, as in the PyTorch encoder
        on_device = jax.device_put((ids, mask), self.device)
        x = model.embed_text(self.text["token_emb"]["emb_var"], on_device[0])
        for block in self.text_blocks:
            x = model.text_block(block, x, on_device[1], epsilon=self.epsilon)
        pooled = model.pool_text(self.text["text_encoder_norm"], x, on_device[1], epsilon=self.epsilon)
        return to_torch(pooled)[: len(texts)]

    def _tree(self, checkpoint: Checkpoint, part: str, dtype: Any) -> dict[str, Any]:
        flat = to_scenic(getattr(checkpoint, part), part, checkpoint.arch)
        arrays = {k: jax.device_put(v.float().numpy().astype(dtype, copy=False), self.device) for k, v in flat.items()}
        return model.unflatten(arrays)


def to_jax(images: torch.Tensor, device: jax.Device) -> jax.Array:
    """The same memory as a JAX array where torch's device is also JAX's; a copy to `device` otherwise."""
    on_gpu = device.platform in ("gpu", "cuda", "rocm")
    images = (images if on_gpu else images.cpu()).detach().contiguous()
    array: jax.Array = jax.device_put(jnp.from_dlpack(images), device)
    return array


def to_torch(array: jax.Array) -> torch.Tensor:
    """The same memory as a torch tensor; JAX arrays never change, so do not write into it.

    From a device that torch does not see (a TPU, a GPU under a CPU-only torch) it is a copy on the CPU.
    """
    (device,) = array.devices()
    if device.platform != "cpu" and not (device.platform in ("gpu", "cuda", "rocm") and torch.cuda.is_available()):
        return torch.from_numpy(np.array(array))
    return torch.utils.dlpack.from_dlpack(array)


def pick_device(device: str) -> jax.Device:
    """JAX's device for --device. Raises UsageError when JAX does not see it."""
    if device == "auto":
        return jax.devices()[0]
    kind, _, index = device.partition(":")
    try:
        return jax.devices({"cuda": "gpu"}.get(kind, kind))[int(index or 0)]
    except (RuntimeError, IndexError, ValueError):
        seen = ", ".join(sorted({d.platform for d in jax.devices()}))
        raise UsageError(f"--device {device}: JAX sees only {seen}. Install JAX for it or use --device cpu") from None


def pick_dtype(dtype: str, device: jax.Device) -> str:
    """`auto` is bfloat16 on an accelerator and float32 on a CPU."""
    if dtype == "auto":
        return "float32" if device.platform == "cpu" else "bfloat16"
    name = SHORT.get(dtype, dtype)
    if name not in DTYPES:
        raise UsageError(f"unknown dtype {dtype!r}. Use auto, {', '.join(DTYPES)}")
    return name


def build(spec: ModelSpec) -> TipsJax:
    """The JAX encoder of `spec`."""
    return TipsJax(spec)
