"""Every kind of file that a later run reads back: how one is made, and what a run makes of it.

`use` does what the product does with the file: it reads it, makes again what it finds damaged, and gives the value that
would go on into a number. After a flipped bit that value must be the undisturbed one, or the use must be refused in one
line (BenchError). `python tests/faults flips` tries 5,000 and prints a line for each kind.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from recipe_fixtures import tiny  # noqa: E402
from rows import row_data, save_json, simulate, write_row  # noqa: E402

from adapters.tipsv2.checkpoint import load  # noqa: E402
from adapters.tipsv2.recipe import ablation, source_scenes, tokens  # noqa: E402
from adapters.tipsv2.recipe.checkpoint import READINGS, newest_whole, save_checkpoint  # noqa: E402
from adapters.tipsv2.recipe.export import load_weights, recipe_of  # noqa: E402
from adapters.tipsv2.recipe.journal import Journal  # noqa: E402
from adapters.tipsv2.recipe.model import Pretrainer  # noqa: E402
from adapters.tipsv2.recipe.trainer import train  # noqa: E402
from benchmark.compare import noise_floor as noise  # noqa: E402
from benchmark.contracts import ModelSpec  # noqa: E402
from benchmark.data.equal_pictures import picture_digests  # noqa: E402
from benchmark.engine.jobs import NOT_APPLICABLE  # noqa: E402
from benchmark.engine.slots import Slot  # noqa: E402
from benchmark.errors import BenchError  # noqa: E402
from benchmark.features import store as features  # noqa: E402
from benchmark.heads import linear_sweep  # noqa: E402
from benchmark.registry import models  # noqa: E402
from benchmark.rows.row import read_all, read_row  # noqa: E402
from benchmark.rows.schema import SCHEMA  # noqa: E402
from benchmark.system import sealed  # noqa: E402
from benchmark.system.digest import fingerprint, plain  # noqa: E402
from benchmark.watch.history import Entry, History, Point  # noqa: E402
from benchmark.watch.steps import progress_of  # noqa: E402
from tasks.datasets import archives, digests  # noqa: E402
from tasks.mm import checkpoint as mm_checkpoint  # noqa: E402
from tasks.scenes import store as scenes  # noqa: E402
from tasks.training import checkpoint as head_checkpoint  # noqa: E402

REFUSED = "refused"


@dataclass(frozen=True)
class Kind:
    """`make` writes files into a folder and returns those to damage; `use` reads them again."""

    name: str
    make: Callable[[Path], Sequence[Path]]
    use: Callable[[Path], Any]


# --------------------------------------------------------------------------------------------------- features

VALUES = np.random.default_rng(0).normal(size=(300, 2, 3)).astype(np.float32)


def _array(folder: Path) -> features.StoredArray:
    return features.FeatureStore(folder / "features", "float32").array({"weights": "w", "model": "m"}, len(VALUES))


def _extract(folder: Path) -> Any:
    features._open_shards._maps.clear()
    array = _array(folder)
    for shard in array.missing():
        rows = array.shard_range(shard)
        array.write(shard, VALUES[rows.start : rows.stop])
    return array[:].numpy().tobytes()


def _make_features(folder: Path) -> list[Path]:
    _extract(folder)
    return [*(folder / "features").glob("*/*/manifest.json"), *(folder / "features").glob("*/*/*.npy")]


def _make_old_features(folder: Path) -> list[Path]:
    """As 7539bc8 wrote them."""
    files = _make_features(folder)
    manifest = sealed.read_json(files[0])
    files[0].write_text(json.dumps({**manifest, "schema": 1}, indent=1))
    return files


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


def _make_head(folder: Path) -> list[Path]:
    head_checkpoint.save_state(folder, "key", *_trained(), [0.5, 0.25])
    return [folder / head_checkpoint.NAME]


def _use_head(folder: Path) -> Any:
    head = torch.nn.Linear(5, 3)
    optimiser = torch.optim.AdamW(head.parameters())
    found = head_checkpoint.load_state(folder, "key", head, optimiser, "cpu")
    if not found.step:  # what is not resumed from is trained again, to the same bits
        return [[0.5, 0.25], *_state(*_trained())]
    return [found.losses, *_state(head, optimiser)]


def _make_probe(folder: Path) -> list[Path]:
    curve = mm_checkpoint.Curve(1)
    curve.add(1, 0.1, 0.5, 80.0)
    mm_checkpoint.Checkpoint(folder / "probe.safetensors").save(1, *_trained(), curve)
    return [folder / "probe.safetensors"]


def _use_probe(folder: Path) -> Any:
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


def _make_sweep(folder: Path) -> list[Path]:
    stacks = _stacks()
    stacks["cls"].weight += 1
    linear_sweep._save(stacks, folder / "sweep.safetensors", "request", 7, [(7, {"cls": [0.5, 0.25]})])
    return [folder / "sweep.safetensors"]


def _use_sweep(folder: Path) -> Any:
    stacks = _stacks()
    done, curve = linear_sweep._resume(stacks, folder / "sweep.safetensors", "request")
    if not done:
        stacks["cls"].weight += 1
        done, curve = 7, [(7, {"cls": [0.5, 0.25]})]
    return [done, curve, {k: t.tolist() for k, t in stacks["cls"].tensors().items()}]


# ----------------------------------------------------------------------------------------------------- the recipe


def _recipe_state(step: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    return {"student/w": torch.arange(20.0) + step}, {"config": "c", "bad": step, "seconds": 1.5, "strikes": {}}


def _readings(step: int) -> str:
    return "".join(f'{{"step": {i}, "loss": {1 / i}}}\n' for i in range(1, step + 1))


def _make_recipe(folder: Path) -> list[Path]:
    readings = folder / READINGS
    for step in (2, 4):
        readings.write_text(_readings(step))
        save_checkpoint(folder, step, *_recipe_state(step), 2, readings)
    return [readings, *(folder / "step-00000004").iterdir()]


def _use_recipe(folder: Path) -> Any:
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


def _make_final(folder: Path) -> list[Path]:
    place = train(tiny(train__steps=1), folder, quiet=True)
    return [p for p in place.iterdir() if p.name not in ("run.json", "heads.safetensors")]


def _use_final(folder: Path) -> Any:
    """As an encoder, and as the start of another stage."""
    loaded = load(ModelSpec("tipsv2-mini", row=models()["tipsv2-mini"], weights=str(folder / "final")))
    student = Pretrainer(recipe_of(folder / "final"))
    load_weights(folder / "final", student)
    state = {**loaded.state_dict(), **student.state_dict()}
    return fingerprint([loaded.info.sha256, {k: v.tolist() for k, v in state.items()}])


def _make_scores(folder: Path) -> list[Path]:
    sealed.write_json(folder / "scores.json", {"schema": ablation.SCHEMA, "evaluation": {"depth/scenes": 1.5}})
    return [folder / "scores.json"]


def _use_scores(folder: Path) -> Any:
    found = ablation.scored(folder / "scores.json")
    return found["evaluation"] if found else {"depth/scenes": 1.5}  # else it is scored again


class _Scene:
    def __init__(self, index: int) -> None:
        self.rgb = np.full((4, 4, 3), index % 251, np.uint8)
        self.alt = self.short = self.long = f"scene {index}"


def _scenes_source(folder: Path) -> source_scenes.ScenesSource:
    return source_scenes.ScenesSource(3, 0, 4, folder / "scenes")


def _use_pretrain(folder: Path) -> Any:
    with (
        mock.patch.object(source_scenes, "SHARD", 3),
        mock.patch.object(source_scenes, "_renderer", lambda: lambda seed, i, size, split: _Scene(i)),
    ):
        source = _scenes_source(folder)
        samples = [source.load(i) for i in range(3)]
    return [[np.asarray(s.image).tolist(), s.alt, list(s.synthetic)] for s in samples]


def _make_pretrain(folder: Path) -> list[Path]:
    _use_pretrain(folder)
    return list((folder / "scenes" / "000000").iterdir())


def _use_tokeniser(folder: Path) -> bytes:
    path = folder / "tokenizer.model"
    if not tokens._whole(path):
        path.write_bytes(bytes(range(200)))
        tokens._seal(path)
    return path.read_bytes()


def _make_tokeniser(folder: Path) -> list[Path]:
    _use_tokeniser(folder)
    return [folder / "tokenizer.model", folder / "tokenizer.digest.json"]


# ----------------------------------------------------------------------------------------------------------- rows


def _make_row(folder: Path) -> list[Path]:
    place = write_row(folder / "results", "a", "classification", n=40, schema=SCHEMA, request="asked")
    return [place / "result.json", place / "samples.parquet"]


def _make_old_row(folder: Path) -> list[Path]:
    """As 7539bc8 wrote them: the values are held against the samples; the rest of the file is not covered."""
    place = write_row(folder / "results", "a", "classification", n=40, schema=1, request="asked")
    return [place / "samples.parquet"]


def _use_row(folder: Path) -> Any:
    """The table, and what the same run makes of the row; a table without it is no false one."""
    (place,) = (folder / "results").glob("*/*/*/*")
    schema = SCHEMA if folder.name == "row" else 1
    shown = [(r.unit, plain(r.data.metrics)) for r in read_all(folder / "results")[0]]
    slot = Slot(place, "asked")
    if slot.finished() is None:
        outcome = simulate("classification", 0.6, 40, "a")
        save_json(place, row_data("a", "classification", outcome, schema=schema, request="asked"), outcome.samples)
    row = read_row(place)
    again = [(row.unit, plain(row.data.metrics))]
    assert shown in ([], again), "a table showed another number"
    return [plain(row.data), {k: v.tolist() for k, v in row.samples.items()}]


def _make_reason(folder: Path) -> list[Path]:
    sealed.write_json(folder / NOT_APPLICABLE, {"reason": "a has no text tower", "request": "asked"})
    return [folder / NOT_APPLICABLE]


def _use_reason(folder: Path) -> Any:
    return Slot(folder, "asked").not_applicable() or "a has no text tower"


def _make_watch(folder: Path) -> list[Path]:
    point = Point("depth/scenes", "fast-1", "RMSE", "m", False, 1.5, (1.0, 2.0), "worse", 0.25, 0.01)
    said = progress_of("step-00000100")
    entry = Entry("step-00000100", "0" * 16, said and said.number, "base", (point,))
    History(folder, "m", "scenes", {"limit": None}, {"baseline": None}, [entry]).save()
    return [folder / "state.json"]


def _use_watch(folder: Path) -> Any:
    return plain(History.open(folder, "m", "scenes", {"limit": None}))


def _make_noise(folder: Path) -> list[Path]:
    floors = {"depth/scenes@12345678": {"m": {"floor": 0.125, "runs": {"reference": 1.0}}}}
    sealed.write_json(folder / noise.FILE, {"schema": noise.SCHEMA, "floors": floors})
    return [folder / noise.FILE]


# ----------------------------------------------------------------------------------------------------------- data


def _use_scenes(folder: Path) -> Any:
    with mock.patch.dict(os.environ, {"BENCH_CACHE": str(folder)}):
        scenes._ensured.cache_clear()
        place = scenes.rendered("test", 16, 2)
        return fingerprint(sealed.digests(place, sorted(p.name for p in place.iterdir())))


def _make_scenes(folder: Path) -> list[Path]:
    _use_scenes(folder)
    return [p for p in (folder / "scenes").glob("*/*") if p.is_file()]


def _use_hashes(folder: Path) -> Any:
    with mock.patch.dict(os.environ, {"BENCH_CACHE": str(folder / "cache")}):
        return digests.of_files(str(folder / "data"), [f"{i}.txt" for i in range(6)])


def _make_hashes(folder: Path) -> list[Path]:
    (folder / "data").mkdir()
    for i in range(6):
        (folder / "data" / f"{i}.txt").write_text(f"{i}")
    _use_hashes(folder)
    return [folder / "cache" / "digests" / "files.sqlite"]


def _use_archive(folder: Path) -> Any:
    with mock.patch.dict(os.environ, {"BENCH_CACHE": str(folder / "cache")}):
        found = archives.Archive([folder / "a.zip"])
        return [(name, found.read(name).decode()) for name in found.names()]


def _make_archive(folder: Path) -> list[Path]:
    import zipfile

    with zipfile.ZipFile(folder / "a.zip", "w") as out:
        for i in range(6):
            out.writestr(f"{i}.txt", f"text {i}")
    _use_archive(folder)
    return list((folder / "cache" / "archives").iterdir())


class FourPictures:
    """An ImageSet of which the first and the last are equal."""

    digest = "f" * 64

    def __len__(self) -> int:
        return 4

    def load(self, index: int) -> np.ndarray:
        return np.full((3, 2, 3), index % 3, np.uint8)


def _use_equal(folder: Path) -> Any:
    with mock.patch.dict(os.environ, {"BENCH_CACHE": str(folder)}):
        return picture_digests(FourPictures())


def _make_equal(folder: Path) -> list[Path]:
    _use_equal(folder)
    return list((folder / "digests").iterdir())


KINDS = (
    Kind("features", _make_features, _extract),
    Kind("features of before manifests were sealed", _make_old_features, _extract),
    Kind("head", _make_head, _use_head),
    Kind("mm probe", _make_probe, _use_probe),
    Kind("sweep", _make_sweep, _use_sweep),
    Kind("training state", _make_recipe, _use_recipe),
    Kind("exported weights", _make_final, _use_final),
    Kind("scores of an ablation", _make_scores, _use_scores),
    Kind("training scenes", _make_pretrain, _use_pretrain),
    Kind("tokeniser", _make_tokeniser, _use_tokeniser),
    Kind("row", _make_row, _use_row),
    Kind("old row's samples", _make_old_row, _use_row),
    Kind("not applicable", _make_reason, _use_reason),
    Kind("watch", _make_watch, _use_watch),
    Kind("noise floors", _make_noise, noise.read),
    Kind("scenes", _make_scenes, _use_scenes),
    Kind("table of digests", _make_hashes, _use_hashes),
    Kind("archive index", _make_archive, _use_archive),
    Kind("digests of pictures", _make_equal, _use_equal),
)


@contextmanager
def _quiet() -> Iterator[None]:
    """Each flip is a run of its own: what one said another may say again."""
    sealed._said.clear()
    sealed.log.disabled = True
    try:
        yield
    finally:
        sealed.log.disabled = False


def flip(content: bytes, bit: int) -> bytes:
    """`content` with one bit changed."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def try_flips(kind: Kind, root: Path, count: int, seed: int) -> Counter[str]:
    """Flips `count` bits, one at a time, each in the files as they were made. Raises AssertionError naming the first
    that changes what is used."""
    draw = random.Random(f"{seed} {kind.name}")
    folder = root / kind.name.split()[0].replace("'", "")
    folder.mkdir(parents=True)
    kept = {path: path.read_bytes() for path in kind.make(folder)}
    undisturbed, outcomes = kind.use(folder), Counter[str]()
    for _ in range(count):
        for path, content in kept.items():  # what the last flip had made again is put back
            if not path.is_file() or path.read_bytes() != content:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        path = draw.choice(sorted(kept))
        bit = draw.randrange(8 * len(kept[path]))
        times = path.stat()
        path.write_bytes(flip(kept[path], bit))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # a disk that rots changes no time
        with _quiet():
            try:
                found = kind.use(folder)
            except BenchError as e:
                assert "\n" not in str(e) and path.parent.name in str(e), e
                outcomes[REFUSED] += 1
                continue
        assert found == undisturbed, f"{kind.name}: bit {bit} of {path.name} changes what is used"
        outcomes["as undisturbed"] += 1
    return outcomes


def try_all(root: Path, flips: int, seed: int, tell: Callable[[str], object]) -> int:
    """`flips` over all KINDS; how many were tried. Raises AssertionError with the first that is used."""
    for kind in KINDS:
        began, count = time.monotonic(), -(-flips // len(KINDS))
        found = try_flips(kind, root / kind.name.replace(" ", "-"), count, seed)
        tell(f"{kind.name}: {count} flips, 0 scored; {dict(found)} ({time.monotonic() - began:.0f} s)")
    return count * len(KINDS)
