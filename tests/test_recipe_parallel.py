"""Two processes give the loss, the gradient and the weights of one process on the same global batch."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from recipe_fixtures import tiny
from recipe_group import train_one
from safetensors.torch import load_file

from adapters.tipsv2.recipe import sharded
from adapters.tipsv2.recipe.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from adapters.tipsv2.recipe.export import export_checkpoint
from adapters.tipsv2.recipe.parallel import Place
from adapters.tipsv2.recipe.trainer import train
from benchmark.errors import BenchError, UsageError

FORKS = multiprocessing.get_context("forkserver")  # one process imports the libraries, the others are forks of it
FORKS.set_forkserver_preload(["recipe_group"])


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def two_processes(out: Path, fails: str = "", world: int = 2, **changes: Any) -> None:
    """Trains in two processes, or in `world`; with `fails`, all must end with 1 and these last words."""
    port = free_port()
    files = [out.with_name(f"{out.name}-{rank}.log") for rank in range(world)]
    runs = [
        FORKS.Process(target=train_one, args=(rank, port, out, changes, files[rank], world)) for rank in range(world)
    ]
    for run in runs:
        run.start()
    for run, file in zip(runs, files, strict=True):
        run.join()
        errors = file.read_text()
        assert run.exitcode == (1 if fails else 0), errors[-3000:]
        assert errors.strip().endswith(fails)


def fork_and_process(out: Path, **changes: Any) -> None:
    """As `two_processes`, but the first of the two is no fork: it ends as any other interpreter."""
    port, file = free_port(), out.with_name("log")
    fork = FORKS.Process(target=train_one, args=(1, port, out, changes, file))
    fork.start()
    code = f"from recipe_group import train_one; train_one(0, {port}, {str(out)!r}, {changes})"
    paths = os.pathsep.join(str(folder) for folder in (Path(__file__).parent, Path(__file__).parents[1]))
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    fork.join()
    assert (done.returncode, fork.exitcode) == (0, 0), done.stderr + file.read_text()


def losses(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def final_weights(out: Path) -> dict[str, torch.Tensor]:
    return {k: v for path in (out / "final").glob("*.safetensors") for k, v in load_file(path).items()}


def assert_same_runs(alone: Path, together: Path) -> None:
    for one, two in zip(losses(alone), losses(together), strict=True):
        for name in one.keys() & {"loss", "contrastive", "dino", "patch"}:
            tolerance = 1e-6 if one["step"] == 1 else 1e-4  # later steps start from weights that differ by rounding
            assert two[name] == pytest.approx(one[name], rel=tolerance), (name, one["step"])
    first, second = (final_weights(out) for out in (alone, together))
    assert first and first.keys() == second.keys()
    for name, value in first.items():
        if name.endswith("k_proj.bias"):
            continue  # its gradient is zero but for rounding, which an optimiser without a floor brings to unit size
        torch.testing.assert_close(second[name], value, rtol=1e-3, atol=2e-4)


def alone(out: Path, balance: str, **changes: Any) -> Path:
    """A run of one process."""
    train(tiny(train__log_every=1, train__steps=3, head__balance=balance, **changes), out, quiet=True)
    return out


def test_two_processes_equal_one(tmp_path: Path) -> None:
    ssl: dict[str, Any] = {"loss__ssl_every": 2}
    two_processes(tmp_path / "two", train__steps=3, head__balance="center", train__accumulate=2, **ssl)
    assert_same_runs(alone(tmp_path / "one", "center", **ssl), tmp_path / "two")


@pytest.mark.parametrize(
    "changes",
    [
        {"loss__dino": 0.0, "loss__patch_loss": "none"},
        {"loss__dino": 0.0},
        {"loss__patch_loss": "none"},
        {"model__frozen": True},
    ],
    ids=["pairs", "patch", "dino", "frozen"],
)
def test_two_processes_equal_one_whatever_pass_ends_a_step(tmp_path: Path, changes: dict[str, Any]) -> None:
    """DDP waits for every parameter in the pass in which it exchanges, which may use few of them."""
    two_processes(tmp_path / "two", train__steps=3, head__balance="center", **changes)
    assert_same_runs(alone(tmp_path / "one", "center", **changes), tmp_path / "two")


@pytest.mark.parametrize(
    ("world", "batch", "parts", "words"),
    [
        (4, 4, 1, "each of 4 processes holds 1 of train.batch_size = 4, .* to a multiple of 8,"),
        (2, 6, 1, "each of 2 processes holds 3 of train.batch_size = 6, .* to a multiple of 4,"),
        (2, 8, 4, "each of 2 processes holds 4 of train.batch_size = 8, in 4 micro-batch.* to a multiple of 16,"),
    ],
)
def test_samples_of_the_self_supervised_branch_are_as_many_in_each_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: int, batch: int, parts: int, words: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(world))
    config = tiny(loss__ssl_every=2, train__batch_size=batch, train__accumulate=parts)
    with pytest.raises(UsageError, match=rf"loss\.ssl_every = 2, but {words} or loss\.ssl_every = 1"):
        train(config, tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


def test_two_processes_with_shards_equal_one_and_end_as_any_other(tmp_path: Path) -> None:
    """Where a thread of the group works on while the interpreter ends, that aborts; a run that fails leaves none."""
    changes: dict[str, Any] = {"train__steps": 3, "head__balance": "sinkhorn", "train__strategy": "fsdp"}
    two = tmp_path / "two"
    fork_and_process(two, **changes)
    assert_same_runs(alone(tmp_path / "one", "sinkhorn"), two)
    two_processes(two, train__seed=1, fails=f"remove {two} []", **changes)


def test_sharded_adafactor_equals_one_process_and_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    # 13 prototypes do not halve, and at this rate a step is a tenth of each parameter's root mean square
    changes: dict[str, Any] = {"optim__name": "adafactor-torch", "optim__lr": 0.1}
    changes |= {"head__prototypes": 13, "train__steps": 4}
    changes |= {"train__validate_every": 2, "train__validate_samples": 12}  # at the steps of the checkpoints
    two_processes(tmp_path / "two", train__strategy="fsdp", **changes)
    train(tiny(train__log_every=1, **changes), tmp_path / "one", quiet=True)
    assert_same_runs(tmp_path / "one", tmp_path / "two")
    one, two = ([row for row in losses(tmp_path / run) if "validation" in row] for run in ("one", "two"))
    assert [row["step"] for row in two] == [2, 4]
    assert two == one
    for name, shape in (("row_var", (64, 1)), ("col_var", (1, 16))):  # whole in the checkpoint, as one process has it
        alone, shared = (
            load_checkpoint(tmp_path / run / "step-00000004")[0][
                f"optimizer/encoder.vision_model.encoder.layer.0.mlp.fc1.weight/{name}"
            ]
            for run in ("one", "two")
        )
        assert alone.shape == shape
        torch.testing.assert_close(shared, alone, rtol=1e-2, atol=0)
    assert not list((tmp_path / "two").glob("step-*/state.safetensors")), "each process writes its part"
    shutil.copytree(tmp_path / "two" / "step-00000002", tmp_path / "alone" / "step-00000002")
    train(
        tiny(train__log_every=1, **changes), tmp_path / "alone", quiet=True
    )  # goes on with one process instead of two
    assert_same_runs(tmp_path / "one", tmp_path / "alone")
    exported = export_checkpoint(tmp_path / "two" / "step-00000004", tmp_path / "exported")
    assert (exported / "model.safetensors").read_bytes() == (
        tmp_path / "two" / "final" / "model.safetensors"
    ).read_bytes()
    shutil.copytree(tmp_path / "two" / "step-00000002", tmp_path / "again" / "step-00000002")
    two_processes(tmp_path / "again", train__strategy="fsdp", **changes)
    parts = [f"step-00000004/state-0000{rank}-of-00002.safetensors" for rank in range(2)]
    for name in (*parts, "final/model.safetensors", "final/heads.safetensors"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_the_adafactor_of_vision_transformers_is_the_same_on_two_copies_of_two_shards(tmp_path: Path) -> None:
    """A mesh of two dimensions: weights are cut between the processes of a pair, and the pairs hold copies. Two
    processes go on from its checkpoint."""
    changes: dict[str, Any] = {"optim__name": "adafactor", "optim__lr": 0.01, "head__prototypes": 33, "train__steps": 3}
    changes |= {"model__width": 32, "train__checkpoint_every": 1, "train__keep": 3}
    four, again = tmp_path / "four", tmp_path / "again"
    two_processes(four, world=4, train__strategy="fsdp", train__shards=2, **changes)
    train(tiny(train__log_every=1, **changes), tmp_path / "one", quiet=True)
    assert_same_runs(tmp_path / "one", four)
    kept = sorted(path.name for path in (four / "step-00000003").glob("state-*"))
    assert kept == [f"state-0000{rank}-of-00002.safetensors" for rank in range(2)], "of two copies the first is kept"
    shutil.copytree(four / "step-00000001", again / "step-00000001")
    two_processes(again, train__strategy="fsdp", **changes)
    assert_same_runs(tmp_path / "one", again)
    one, *shared = (load_checkpoint(run / "step-00000003")[0] for run in (tmp_path / "one", four, again))
    layer = "optimizer/encoder.vision_model.encoder.layer.0.mlp.fc1.weight/"
    for run in shared:
        for name, shape in (("row_var", (128, 1)), ("col_var", (1, 32)), ("momentum", (128, 32))):
            assert one[layer + name].shape == run[layer + name].shape == shape
        torch.testing.assert_close(run[layer + "col_var"], one[layer + "col_var"], rtol=1e-2, atol=0)


@pytest.mark.parametrize(
    ("strategy", "shards", "words"),
    [
        ("fsdp", 3, "train.shards = 3 must divide the number of processes, 4"),
        ("ddp", 2, 'train.shards = 2, but train.strategy = "ddp" cuts no weights'),
    ],
)
def test_shards_that_make_no_groups_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str, shards: int, words: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UsageError, match=words):
        train(tiny(train__strategy=strategy, train__shards=shards), tmp_path / "out", quiet=True)


@pytest.mark.parametrize("rank", [0, 1])
def test_where_one_process_cannot_write_no_process_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    told: list[str | None] = []

    def agree(digest: str | None, device: torch.device) -> list[str | None]:
        told.append(digest)
        return [digest, None] if rank == 0 and len(told) == 2 else [digest or "00" * 32] * 2

    monkeypatch.setattr(sharded, "agree", agree)
    monkeypatch.setattr(sharded, "cut_along", lambda tensors: dict.fromkeys(tensors, 0))
    place = Place(torch.device("cpu"), torch.float32, rank, 2, shards=2)
    tensors = {"w": torch.zeros(2)}
    if rank == 0:
        with pytest.raises(BenchError, match="process 1 could not write its part"):
            save_checkpoint(tmp_path, 3, tensors, {}, 2, where=place)
    else:
        with pytest.raises(Exception, match="No such file"):  # the folder that the first process did not make
            save_checkpoint(tmp_path, 3, tensors, {}, 2, where=place)
        assert told[-1] is None
    assert checkpoints(tmp_path) == []
