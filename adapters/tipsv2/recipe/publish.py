"""A finished run as the folder that the package embeds: float16 weights, tokeniser, projectors, and how they were made.

python -m adapters.tipsv2.recipe.publish runs/tipsv2-mini adapters/weights/tipsv2-mini

A run that started from another one's weights (`init_from`) brings that stage's record along: `stages/<name>/` holds the
config and the log of each, `run.json` their commands, seeds, steps and hours.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from adapters.tipsv2.recipe.config import RecipeConfig
from adapters.tipsv2.recipe.config_file import CONFIGS, read_config
from adapters.tipsv2.recipe.resume import leaves
from adapters.tipsv2.recipe.weights import recipe_of
from benchmark.errors import WeightsError
from benchmark.system import sealed
from benchmark.system.digest import sha256_file

LIMIT_BYTES = 8 * 2**20  # for each embedded folder
FOUND_OUT = ("model.vocab_size",)  # set by the run itself, not by whoever starts it


def publish(run: Path, target: Path) -> Path:
    """Copies `run`/final to `target` with float16 tensors and its stages' logs. Raises WeightsError past 8 MiB."""
    final = run / "final"
    if not (final / "model.safetensors").is_file():
        raise WeightsError(f"{final}/model.safetensors: missing. Finish the run first: bench train CONFIG --out {run}")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in ("model.safetensors", "heads.safetensors"):
        if (final / name).is_file():
            sealed.check_written(final / name)
            halved = {k: v.to(torch.float16) for k, v in load_file(final / name).items()}
            save_file(halved, target / name, metadata={"format": "pt"})
    config = json.loads((final / "config.json").read_text()) | {"dtype": "float16"}
    (target / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    shutil.copyfile(final / "tokenizer.model", target / "tokenizer.model")
    shutil.copyfile(final / "recipe.json", target / "recipe.json")
    facts = {
        "stages": [record(stage, target / "stages") for stage in stages(run)],
        "sha256": sha256_file(target / "model.safetensors"),
    }
    (target / "run.json").write_text(json.dumps(facts, indent=1) + "\n")
    size = sum(p.stat().st_size for p in target.rglob("*") if p.is_file())
    if size > LIMIT_BYTES:
        raise WeightsError(f"{target}: {size} bytes, the limit is {LIMIT_BYTES}")
    return target


def stages(run: Path) -> list[Path]:
    """The runs that led to this one, first stage first. `init_from` is read from where the run was started."""
    before = recipe_of(run / "final").init_from
    if not before:
        return [run]
    earlier = Path(before).parent
    for root in (Path(), run.parent.parent):  # the folder the command was given in holds runs/
        if (root / earlier / "final").is_dir():
            return [*stages(root / earlier), run]
    raise WeightsError(f"{run}: its first stage {earlier} is not there. Publish from the folder it was trained in")


def record(run: Path, into: Path) -> dict[str, Any]:
    """Copies config and log of one stage; its command, seed, steps, pictures seen and hours."""
    config = recipe_of(run / "final")
    folder = into / config.name
    folder.mkdir(parents=True)
    shutil.copyfile(run / "final" / "recipe.json", folder / "recipe.json")
    shutil.copyfile(run / "metrics.jsonl", folder / "metrics.jsonl")
    facts = json.loads((run / "final" / "run.json").read_text())
    return {
        "name": config.name,
        "command": command(config),
        "seed": config.train.seed,
        "steps": facts["steps"],
        "pictures": facts["steps"] * config.train.batch_size,
        "hours": facts["hours"],
        "bad_samples": facts["bad_samples"],
    }


def command(config: RecipeConfig) -> str:
    """`bench train NAME` with a `--set` for every field that differs from the packaged config of that name."""
    if not (CONFIGS / f"{config.name}.toml").is_file():
        return f"bench train {config.name}.toml"
    mine, packaged = leaves(config), leaves(read_config(config.name))
    changed = [f"--set {k}={v}" for k, v in mine.items() if v != packaged[k] and k not in FOUND_OUT]
    return " ".join(["bench train", config.name, *changed])


if __name__ == "__main__":
    print(publish(Path(sys.argv[1]), Path(sys.argv[2])))
