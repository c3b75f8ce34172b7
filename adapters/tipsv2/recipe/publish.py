"""A finished run as the folder that the package embeds: float16 weights, tokeniser, projectors, config, log.

python -m adapters.tipsv2.recipe.publish runs/tipsv2-mini adapters/weights/tipsv2-mini
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from benchmark.digest import sha256_file
from benchmark.errors import WeightsError

LIMIT_BYTES = 8 * 2**20  # for each embedded folder


def publish(run: Path, target: Path) -> Path:
    """Copies `run`/final to `target` with float16 tensors and the run's log. Raises WeightsError past 8 MiB."""
    final = run / "final"
    if not (final / "model.safetensors").is_file():
        raise WeightsError(f"{final}/model.safetensors: missing. Finish the run first: bench train CONFIG --out {run}")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in ("model.safetensors", "heads.safetensors"):
        if (final / name).is_file():
            halved = {k: v.to(torch.float16) for k, v in load_file(final / name).items()}
            save_file(halved, target / name, metadata={"format": "pt"})
    config = json.loads((final / "config.json").read_text()) | {"dtype": "float16"}
    (target / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    for name in ("tokenizer.model", "recipe.json"):
        shutil.copyfile(final / name, target / name)
    shutil.copyfile(run / "metrics.jsonl", target / "metrics.jsonl")
    facts = json.loads((final / "run.json").read_text())
    name = json.loads((final / "recipe.json").read_text())["name"]
    facts |= {"command": f"bench train {name}", "sha256": sha256_file(target / "model.safetensors")}
    (target / "run.json").write_text(json.dumps(facts, indent=1) + "\n")
    size = sum(p.stat().st_size for p in target.iterdir())
    if size > LIMIT_BYTES:
        raise WeightsError(f"{target}: {size} bytes, the limit is {LIMIT_BYTES}")
    return target


if __name__ == "__main__":
    print(publish(Path(sys.argv[1]), Path(sys.argv[2])))
