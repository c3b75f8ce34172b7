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

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from rows import row_data, save_json, simulate, write_row  # noqa: E402
from stored_training import (  # noqa: E402
    VALUES,
    make_final,
    make_head,
    make_kept,
    make_pretrain,
    make_probe,
    make_recipe,
    make_scores,
    make_shard_index,
    make_steps,
    make_sweep,
    make_tokeniser,
    use_final,
    use_head,
    use_kept,
    use_pretrain,
    use_probe,
    use_recipe,
    use_scores,
    use_shard_index,
    use_steps,
    use_sweep,
    use_tokeniser,
)

from benchmark.compare import noise_floor as noise  # noqa: E402
from benchmark.contracts import ImageSet  # noqa: E402
from benchmark.data.equal_pictures import picture_digests  # noqa: E402
from benchmark.engine.slots import NOT_APPLICABLE, Slot  # noqa: E402
from benchmark.errors import BenchError  # noqa: E402
from benchmark.features import store as features  # noqa: E402
from benchmark.rows.row import read_all, read_row  # noqa: E402
from benchmark.rows.schema import SCHEMA  # noqa: E402
from benchmark.system import sealed  # noqa: E402
from benchmark.system.digest import fingerprint, plain  # noqa: E402
from benchmark.watch.history import Entry, History, Point  # noqa: E402
from benchmark.watch.steps import progress_of  # noqa: E402
from tasks.datasets import archives, digests  # noqa: E402
from tasks.scenes import store as scenes  # noqa: E402

REFUSED = "refused"


@dataclass(frozen=True)
class Kind:
    """`make` writes files into a folder and returns those to damage; `use` reads them again."""

    name: str
    make: Callable[[Path], Sequence[Path]]
    use: Callable[[Path], Any]


# --------------------------------------------------------------------------------------------------- features


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
    entry = Entry("step-00000100", "0" * 16, said.number if said else None, "base", (point,))
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
        scenes._found.clear()
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


class FourPictures(ImageSet):
    """Pictures of which the first and the last are equal."""

    digest = "f" * 64

    def __len__(self) -> int:
        return 4

    def image_id(self, index: int) -> str:
        return str(index)

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
    Kind("head", make_head, use_head),
    Kind("mm probe", make_probe, use_probe),
    Kind("sweep", make_sweep, use_sweep),
    Kind("kept head", make_kept, use_kept),
    Kind("steps of a helper", make_steps, use_steps),
    Kind("index of shards", make_shard_index, use_shard_index),
    Kind("training state", make_recipe, use_recipe),
    Kind("exported weights", make_final, use_final),
    Kind("scores of an ablation", make_scores, use_scores),
    Kind("training scenes", make_pretrain, use_pretrain),
    Kind("tokeniser", make_tokeniser, use_tokeniser),
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
