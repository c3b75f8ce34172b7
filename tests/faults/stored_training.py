"""The files of `stored` that training writes and reads back: states of heads, of mm's probe, and of the recipe."""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from recipe_fixtures import tiny  # noqa: E402
from small import SmallEncoder  # noqa: E402

from adapters.tipsv2.checkpoint import load  # noqa: E402
from adapters.tipsv2.recipe import ablation, source_scenes, tokens  # noqa: E402
from adapters.tipsv2.recipe.checkpoint import READINGS, newest_whole, save_checkpoint  # noqa: E402
from adapters.tipsv2.recipe.export import load_weights  # noqa: E402
from adapters.tipsv2.recipe.journal import Journal  # noqa: E402
from adapters.tipsv2.recipe.model import Pretrainer  # noqa: E402
from adapters.tipsv2.recipe.shard_index import open_index  # noqa: E402
from adapters.tipsv2.recipe.shards import find_shards  # noqa: E402
from adapters.tipsv2.recipe.trainer import train  # noqa: E402
from adapters.tipsv2.recipe.weights import recipe_of  # noqa: E402
from benchmark.contracts import KeptHead, ModelSpec  # noqa: E402
from benchmark.contracts.steps import StepInput  # noqa: E402
from benchmark.engine.shared_steps import Pieces  # noqa: E402
from benchmark.heads import linear_sweep  # noqa: E402
from benchmark.heads.kept import head_file, read_head, refuse_another  # noqa: E402
from benchmark.registry import models  # noqa: E402
from benchmark.system import sealed  # noqa: E402
from benchmark.system.digest import fingerprint  # noqa: E402
from tasks.mm import checkpoint as mm_checkpoint  # noqa: E402
from tasks.training import checkpoint as head_checkpoint  # noqa: E402

VALUES = np.random.default_rng(0).normal(size=(300, 2, 3)).astype(np.float32)

# ------------------------------------------------------------------------------------------------- trained heads


def _trained() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    head = torch.nn.Linear(5, 3)
    optimiser = torch.optim.AdamW(head.parameters(), lr=0.1)
    torch.autograd.backward(head(torch.ones(2, 5)).square().sum())
    optimiser.step()
    return head, optimiser


def _state(head: torch.nn.Module, optimiser: torch.optim.Optimizer) -> Any:
    moments = [{k: v.tolist() for k, v in optimiser.state[p].items()} for p in head.parameters()]
    return [{k: v.tolist() for k, v in head.state_dict().items()}, moments]


def make_head(folder: Path) -> list[Path]:
    head_checkpoint.save_state(folder, "key", *_trained(), [0.5, 0.25])
    return [folder / head_checkpoint.NAME]


def use_head(folder: Path) -> Any:
    head = torch.nn.Linear(5, 3)
    optimiser = torch.optim.AdamW(head.parameters())
    found = head_checkpoint.load_state(folder, "key", head, optimiser, "cpu")
    if not found.step:  # what is not resumed from is trained again, to the same bits
        return [[0.5, 0.25], *_state(*_trained())]
    return [found.losses, *_state(head, optimiser)]


def make_probe(folder: Path) -> list[Path]:
    curve = mm_checkpoint.Curve(1)
    curve.add(1, 0.1, 0.5, 80.0)
    mm_checkpoint.Checkpoint(folder / "probe.safetensors").save(1, *_trained(), curve)
    return [folder / "probe.safetensors"]


def use_probe(folder: Path) -> Any:
    tensors = mm_checkpoint.Checkpoint(folder / "probe.safetensors").read()
    head, optimiser = _trained()
    curve = mm_checkpoint.Curve(1)
    if tensors is None:
        curve.add(1, 0.1, 0.5, 80.0)
        return [1, curve.rows, *_state(head, optimiser)]
    mm_checkpoint.restore(tensors, head, optimiser, curve)
    return [int(tensors["step"]), curve.rows, *_state(head, optimiser)]


def _stacks() -> dict[str, Any]:
    x = torch.from_numpy(VALUES[:, 0])
    return {"cls": linear_sweep._Stack(x, [(0.1, 0.0), (0.2, 0.0)], 3, 1.0, 0.9, "cpu")}


def make_sweep(folder: Path) -> list[Path]:
    stacks = _stacks()
    stacks["cls"].weight += 1
    linear_sweep._save(stacks, folder / "sweep.safetensors", "request", 7, [(7, {"cls": [0.5, 0.25]})])
    return [folder / "sweep.safetensors"]


def use_sweep(folder: Path) -> Any:
    stacks = _stacks()
    done, curve = linear_sweep._resume(stacks, folder / "sweep.safetensors", "request")
    if not done:
        stacks["cls"].weight += 1
        done, curve = 7, [(7, {"cls": [0.5, 0.25]})]
    return [done, curve, {k: t.tolist() for k, t in stacks["cls"].tensors().items()}]


def make_kept(folder: Path) -> list[Path]:
    encoder = SmallEncoder()
    head = KeptHead("labels", dict(torch.nn.Linear(4, 3).state_dict()), {"cls": "first", "names": ["a", "b", "c"]})
    (folder / "head.safetensors").write_bytes(head_file(head, encoder, {"model": "small", "task": "classification"}))
    return [folder / "head.safetensors"]


def use_kept(folder: Path) -> Any:
    head, meta = read_head(folder / "head.safetensors")
    refuse_another(folder / "head.safetensors", meta, SmallEncoder())
    return [head.kind, {name: values.tolist() for name, values in head.arrays.items()}, head.use, meta]


def _pieces(folder: Path) -> tuple[Pieces, list[StepInput]]:
    inputs: list[StepInput] = [{"x": torch.arange(6.0).reshape(2, 3).T + step} for step in range(4)]
    return Pieces(SimpleNamespace(steps=4, pictures=64), folder, folder, "key"), inputs  # type: ignore[arg-type]


def make_steps(folder: Path) -> list[Path]:
    pieces, inputs = _pieces(folder)
    pieces.folder.mkdir()
    pieces.save(1, inputs[2:])
    return [pieces.file(1)]


def use_steps(folder: Path) -> Any:
    """What is damaged the trainer makes itself; who made the steps is an account, and is sealed with them."""
    pieces, inputs = _pieces(folder)
    steps, _ = pieces.load(1) or (dict(zip(pieces.steps(1), inputs[2:])), "")
    return {step: [one["x"].tolist(), one["x"].stride()] for step, one in steps.items()}


# ----------------------------------------------------------------------------------------------------- the recipe


def use_shard_index(folder: Path) -> Any:
    found = open_index(find_shards(str(folder / "pictures.tar")), folder / "index")
    return [found.entries.tolist(), found.starts.tolist(), found.ids]


def make_shard_index(folder: Path) -> list[Path]:
    with tarfile.open(folder / "pictures.tar", "w") as out:
        for i in range(20):
            for suffix, size in (("jpg", 700 + i), ("txt", 5)):
                member = tarfile.TarInfo(f"{i:04d}.{suffix}")
                member.size = size
                out.addfile(member, io.BytesIO(b"x" * size))
    use_shard_index(folder)
    return [path for path in (folder / "index").rglob("*") if path.is_file()]


def _recipe_state(step: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    return {"student/w": torch.arange(20.0) + step}, {"config": "c", "bad": step, "seconds": 1.5, "strikes": {}}


def _readings(step: int) -> str:
    return "".join(f'{{"step": {i}, "loss": {1 / i}}}\n' for i in range(1, step + 1))


def make_recipe(folder: Path) -> list[Path]:
    readings = folder / READINGS
    for step in (2, 4):
        readings.write_text(_readings(step))
        save_checkpoint(folder, step, *_recipe_state(step), 2, readings)
    return [readings, *(folder / "step-00000004").iterdir()]


def use_recipe(folder: Path) -> Any:
    """Training goes on to step 4 from wherever it may."""
    found = newest_whole(folder)
    step = found[2]["step"] if found else 0
    if found:
        tensors, facts = _recipe_state(step)
        assert found[1].keys() == tensors.keys() and torch.equal(found[1]["student/w"], tensors["student/w"])
        assert facts.items() <= found[2].items()
    Journal(folder, 9, 1, step, quiet=True, kept=found[0] / READINGS if found else None)
    assert not step or (folder / READINGS).read_text() == _readings(step)
    return step in (0, 2, 4)


def make_final(folder: Path) -> list[Path]:
    place = train(tiny(train__steps=1), folder, quiet=True)
    return [p for p in place.iterdir() if p.name not in ("run.json", "heads.safetensors")]


def use_final(folder: Path) -> Any:
    """As an encoder, and as the start of another stage."""
    loaded = load(ModelSpec("tipsv2-mini", row=models()["tipsv2-mini"], weights=str(folder / "final")))
    student = Pretrainer(recipe_of(folder / "final"))
    load_weights("init_from", str(folder / "final"), student)
    state = {**loaded.state_dict(), **student.state_dict()}
    return fingerprint([loaded.info.sha256, {k: v.tolist() for k, v in state.items()}])


def make_scores(folder: Path) -> list[Path]:
    sealed.write_json(folder / "scores.json", {"schema": ablation.SCHEMA, "evaluation": {"depth/scenes": 1.5}})
    return [folder / "scores.json"]


def use_scores(folder: Path) -> Any:
    found = ablation.scored(folder / "scores.json")
    return found["evaluation"] if found else {"depth/scenes": 1.5}  # else it is scored again


class _Scene:
    def __init__(self, index: int) -> None:
        self.rgb = np.full((4, 4, 3), index % 251, np.uint8)
        self.alt = self.short = self.long = f"scene {index}"


def _draw(seed: int, index: int, size: int, *, split: str) -> _Scene:
    return _Scene(index)


def use_pretrain(folder: Path) -> Any:
    with mock.patch.object(source_scenes, "SHARD", 3):
        source = source_scenes.ScenesSource(3, 0, 4, folder / "scenes", _draw)
        samples = [source.load(i) for i in range(3)]
    return [[np.asarray(s.image).tolist(), s.alt, list(s.synthetic)] for s in samples]


def make_pretrain(folder: Path) -> list[Path]:
    use_pretrain(folder)
    return list((folder / "scenes" / "000000").iterdir())


def use_tokeniser(folder: Path) -> bytes:
    path = folder / "tokenizer.model"
    if not tokens._whole(path):
        path.write_bytes(bytes(range(200)))
        tokens._seal(path)
    return path.read_bytes()


def make_tokeniser(folder: Path) -> list[Path]:
    use_tokeniser(folder)
    return [folder / "tokenizer.model", folder / "tokenizer.digest.json"]
