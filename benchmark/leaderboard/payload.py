"""Boards as the data of the page: plain JSON in which models, protocols and environments stand once."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmark.compare.report import without_nan
from benchmark.engine.environment import package_version
from benchmark.leaderboard.agreement import disagreement
from benchmark.leaderboard.collect import Board, Entry, newest
from benchmark.leaderboard.merge import without_places
from benchmark.registry import tasks
from benchmark.rows.schema import RowData
from benchmark.rows.tables import ceilings, chances
from benchmark.sensitivity.kept import read_kept
from benchmark.system.digest import canonical_json, fingerprint, plain

PICTURE_BYTES = 400_000  # of one picture; larger ones are named, not shown
PICTURES_BYTES = 12_000_000  # of all pictures in the page
DETAIL_CHARACTERS = 4000
PICTURE_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}


class Interned:
    """Values that many rows share, each kept once; `index` gives a value's place."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[str, int] = {}

    def index(self, value: Any) -> int:
        key = fingerprint(without_nan(plain(value)))
        if key not in self._places:
            self._places[key] = len(self.values)
            self.values.append(value)
        return self._places[key]


def payload(
    boards: Sequence[Board],
    papers: Sequence[Mapping[str, Any]],
    problems: Sequence[str],
    places: Mapping[Path, str],
    effects: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Everything the page knows. `places`: every folder that rows lie in -> what the page calls it."""
    protocols, environments = Interned(), Interned()
    names = {name: i for i, name in enumerate(sorted({e.name for b in boards for e in b.entries}))}
    pictures = Pictures(places)
    rows = [
        _row(number, entry, names, environments, pictures)
        for number, board in enumerate(boards)
        for entry in board.entries
    ]
    found: dict[str, Any] = without_nan(
        {
            "boards": [_board(b, protocols) for b in boards],
            "models": _models(boards, names),
            "rows": rows,
            "protocols": protocols.values,
            "environments": environments.values,
            "published": list(papers),
            "effects": list(effects),
            "problems": [without_places(line, places) for line in problems],
            "version": package_version("densebench") or "source",
            "newest": newest(boards),
            "tasks": {name: row["title"] for name, row in tasks().items()},
        }
    )
    return found


def _board(board: Board, protocols: Interned) -> dict[str, Any]:
    d, main = board.first.data, board.first.main
    return {
        "task": d.task.name, "dataset": d.task.dataset, "split": d.task.split or "",
        "n": board.total_samples, "digest": d.task.dataset_digest,
        "part": all(e.row.part for e in board.entries),
        "protocol": protocols.index({"task": d.task.name, **d.protocol.json()}),
        "chance": chances([e.row for e in board.entries]),
        "ceiling": ceilings([e.row for e in board.entries]),
        "disagrees": disagreement([(e.name, e.row) for e in board.entries]),
        "metric": d.main_metric, "unit": main.unit, "up": main.higher_is_better,
        "suite": "scenes" if d.task.dataset == "scenes" else "data",
        "classes": board.class_names, "samples": board.sample_ids,
    }  # fmt: skip


def _models(boards: Sequence[Board], names: Mapping[str, int]) -> list[dict[str, Any]]:
    found: dict[str, list[Entry]] = {}
    for board in boards:
        for entry in board.entries:
            found.setdefault(entry.name, []).append(entry)
    out = []
    for name in names:
        m = found[name][0].row.data.model
        speeds = [s for e in found[name] if (s := e.row.data.timing.images_per_s)]
        memory = [s for e in found[name] if (s := e.row.data.peak_memory_mb)]
        out.append(
            {
                "name": name, "family": m.family, "params": m.params, "licence": m.licence, "backend": m.backend,
                "dtype": m.dtype, "image_size": m.image_size, "patch_size": m.patch_size, "weights": m.weights.json(),
                "speed": median(speeds) if speeds else None, "memory": max(memory, default=None),
            }
        )  # fmt: skip
    return out


def _row(
    number: int, entry: Entry, names: Mapping[str, int], environments: Interned, pictures: Pictures
) -> dict[str, Any]:
    d, main, s = entry.row.data, entry.row.main, entry.standing
    metrics = {
        name: {"value": m.value, "ci95": m.ci95, "unit": m.unit, "higher_is_better": m.higher_is_better}
        for name, m in d.metrics.items()
    }
    return {
        "b": number, "m": names[entry.name], "v": main.value, "lo": main.ci95[0], "hi": main.ci95[1],
        "rank": s.rank, "sd": round(s.rank_sd, 2), "tie": s.tied, "delta": s.delta, "p": round(s.p, 4),
        "classes": entry.classes and [_short(v) for v in entry.classes],
        "samples": entry.samples and [_short(v) for v in entry.samples],
        "metrics": metrics, "env": environments.index(d.environment.json()),
        "timing": d.timing.json(), "memory": d.peak_memory_mb, "bad": _left_out(d), "seed": d.seed,
        "command": d.command, "created": d.created, "id": d.id, "weights": d.model.weights.json(),
        "shipped": entry.shipped, "stale": entry.row.stale,
        "details": _details(d.details), "folder": pictures.relative(entry.row.folder),
        "pictures": pictures.of(entry.drawn or entry.row.folder), "drawn": entry.drawn is not None,
    }  # fmt: skip


def _left_out(data: RowData) -> int | str:
    """The number of pictures left out; where the split was a small part of the official one, how small."""
    return "; ".join([str(data.n_bad), *data.partial]) if data.partial else data.n_bad


def _details(details: Mapping[str, Any]) -> dict[str, Any]:
    """What a task noted beside its metrics; the per-class values have their own place, long notes are only named."""
    kept = {k: v for k, v in details.items() if k not in ("per_class_iou", "class_names")}
    if len(canonical_json(without_nan(plain(kept)))) > DETAIL_CHARACTERS:
        return {"": f"{', '.join(sorted(kept))}: too long for the page, see result.json"}
    return kept


def shown_effects(boards: Sequence[Board], folders: Sequence[Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """What `bench sensitivity` found for rows of these boards, each with `r`, the place of its row in the page."""
    entries = [entry for board in boards for entry in board.entries]
    place = {entry.row.folder: i for i, entry in enumerate(entries)}
    rows = {entry.row.folder: entry.row for entry in entries}
    out, problems = [], []
    for folder in folders:
        found, lost = read_kept(folder, rows)
        out += [
            {"r": place[row.folder], **{k: v for k, v in effect.json().items() if k not in ("folder", "base_folder")}}
            for row, effect in found
        ]
        problems += lost
    return out, problems


class Pictures:
    """The pictures beside rows, as data URIs up to a total; what is past it is named."""

    def __init__(self, places: Mapping[Path, str]) -> None:
        self.places, self.left = places, PICTURES_BYTES

    def relative(self, folder: Path) -> str:
        """`folder` as seen from the results folder."""
        inside = [place for place in self.places if folder.is_relative_to(place)]
        nearest = max(inside, key=lambda place: len(place.parts))
        return (Path(self.places[nearest]) / folder.relative_to(nearest)).as_posix()

    def of(self, folder: Path) -> list[dict[str, str]]:
        """Name and data URI (or "" where it would make the page too large) of each picture in `folder`/pictures."""
        out = []
        for file in sorted((folder / "pictures").glob("*")):
            if file.suffix not in PICTURE_TYPES or not file.is_file():
                continue
            size = file.stat().st_size
            uri = ""
            if size <= min(PICTURE_BYTES, self.left):
                self.left -= size
                uri = f"data:{PICTURE_TYPES[file.suffix]};base64," + base64.b64encode(file.read_bytes()).decode("ascii")
            out.append({"name": file.stem, "src": uri})
        return out


def _short(value: float) -> float | None:
    """4 significant digits; None for NaN."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
