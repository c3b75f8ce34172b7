"""Turns a training state of the recipe (step-N/state.safetensors) into weights that `bench run --weights` takes.

    python weights_of_state.py RUN/step-00000200 OUT --like FOLDER

FOLDER is any exported folder of the same architecture: its config.json and tokenizer.model are copied.
A folder that holds no training state, as the run's `final`, is copied as it is.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

STUDENT = "student/encoder."


def convert(folder: Path, out: Path, like: Path) -> None:
    """The student of a training state as config.json, model.safetensors and tokenizer.model in `out`."""
    state = load_file(folder / "state.safetensors")
    weights = {k.removeprefix(STUDENT): v for k, v in state.items() if k.startswith(STUDENT)}
    weights["temperature"] = np.asarray(np.exp(state["student/log_temperature"]), np.float32).reshape(())
    out.mkdir(parents=True)
    for name in ("config.json", "tokenizer.model"):
        shutil.copy(like / name, out)
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    """Writes OUT through a temporary name, so that nobody reads half of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("state", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--like", type=Path, required=True)
    words = parser.parse_args()
    staging = words.out.with_name(f".{words.out.name}.part")
    shutil.rmtree(staging, ignore_errors=True)
    if (words.state / "state.safetensors").is_file():
        convert(words.state, staging, words.like)
    else:
        shutil.copytree(words.state, staging)
    shutil.rmtree(words.out, ignore_errors=True)
    staging.rename(words.out)


if __name__ == "__main__":
    main()
