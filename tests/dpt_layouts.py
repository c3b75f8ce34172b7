"""Released DPT heads in miniature: the authors' keys and layouts with random values, and layers to put through them."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path

import numpy as np
import torch

WIDTH, CHANNELS, OUT = 16, 8, 5
Tree = dict[str, np.ndarray]


def flax_tree(seed: int = 0, width: int = WIDTH, out: int = OUT, head: str = "pixel_depth_classif") -> Tree:
    """The released heads' keys and layouts, with random values."""
    rng = np.random.default_rng(seed)
    tree: Tree = {}

    def put(name: str, *shape: int, bias: bool = True) -> None:
        tree[f"decoder/{name}/kernel"] = rng.normal(0, 1 / math.sqrt(np.prod(shape[:-1])), shape).astype(np.float32)
        if bias:
            tree[f"decoder/{name}/bias"] = rng.normal(0, 0.1, shape[-1]).astype(np.float32)

    widths = (width // 8, width // 4, width // 2, width)
    for i, w in enumerate(widths):
        put(f"dpt/reassemble_blocks/readout_projects_{i}", 2 * width, width)
        put(f"dpt/reassemble_blocks/out_projection_{i}", 1, 1, width, w)
        put(f"dpt/convs_{i}", 3, 3, w, CHANNELS, bias=False)
        for unit in range(2 if i else 1):
            for conv in ("conv1", "conv2"):
                put(f"dpt/fusion_blocks_{i}/PreActResidualConvUnit_{unit}/{conv}", 3, 3, CHANNELS, CHANNELS, bias=False)
        put(f"dpt/fusion_blocks_{i}/Conv_0", 1, 1, CHANNELS, CHANNELS)
    put("dpt/reassemble_blocks/resize_layers_0", 4, 4, widths[0], widths[0])
    put("dpt/reassemble_blocks/resize_layers_1", 2, 2, widths[1], widths[1])
    put("dpt/reassemble_blocks/resize_layers_3", 3, 3, widths[3], widths[3])
    put("dpt/project", 3, 3, CHANNELS, CHANNELS)
    put(head, CHANNELS, out)
    return tree


def write_zip(path: Path, tree: Tree) -> Path:
    """One .npy for each array, in a zip."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in tree.items():
            buffer = io.BytesIO()
            np.save(buffer, value)
            archive.writestr(f"{name}.npy", buffer.getvalue())
    return path


def tokens(height: int, width: int, seed: int = 1) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(size=(2, WIDTH)).astype(np.float32), rng.normal(size=(2, height, width, WIDTH)).astype(np.float32))
        for _ in range(4)
    ]


def as_torch(layers: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(torch.from_numpy(cls), torch.from_numpy(patches).permute(0, 3, 1, 2)) for cls, patches in layers]
