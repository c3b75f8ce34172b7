"""One process of a group that trains the tiny recipe together."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import matplotlib.figure  # noqa: F401  # what training imports late stands here: a fork of this process has it
import torch._dynamo
import torch.distributed.fsdp  # noqa: F401
from recipe_fixtures import tiny

from adapters.tipsv2.recipe.trainer import train
from benchmark.errors import UsageError


def train_one(
    rank: int, port: int, out: Path | str, changes: dict[str, Any], words: Path | None = None, world: int = 2
) -> None:
    """Trains as process `rank` of `world` that meet at `port`. What it says goes to the file `words`.

    Ends with 1 and the line of a UsageError, after it the threads of the group that are left: none.
    """
    os.environ |= {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    if words:
        handle = os.open(words, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 2)
    try:
        train(tiny(train__log_every=1, **changes), Path(out), quiet=True)
    except UsageError as e:
        sys.exit(f"{e} {_threads_of_the_group()}")
    assert not _threads_of_the_group(), "one that works on while the interpreter ends aborts the process"


def _threads_of_the_group() -> list[str]:
    return [name for task in Path("/proc/self/task").glob("*/comm") if "gloo" in (name := task.read_text())]
