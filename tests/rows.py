"""Complete result rows made of simulated samples: what tests of everything that only reads rows build on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.contracts import Measurement, Outcome
from benchmark.protocol import preset_table
from benchmark.registry import protocol_file
from benchmark.rows.row import row_folder, save
from benchmark.rows.schema import parse_row
from benchmark.statistics.statistic import Statistic
from benchmark.system.digest import fingerprint, plain

NINE = (
    "zero_shot_segmentation",
    "image_to_text_retrieval",
    "text_to_image_retrieval",
    "zero_shot_classification",
    "linear_segmentation",
    "depth",
    "normals",
    "classification",
    "instance_retrieval",
)
CLASSES = ("floor", "wall", "sphere", "box", "cone", "cylinder", "torus", "ring")


def _seed(*parts: object) -> int:
    return int(fingerprint([str(p) for p in parts])[:8], 16)


def simulate(task: str, skill: float, n: int, model: str, seed: int = 0, noise: float = 0.05) -> Outcome:
    """What `task` would hand back for a model of `skill` (0 … 1); samples of one task share their difficulty."""
    shared = np.random.default_rng(_seed(task, n))
    own = np.random.default_rng(_seed(task, n, model, seed))
    quality = np.clip(skill + 0.18 * shared.standard_normal(n) + noise * own.standard_normal(n), 0.01, 0.99)
    ids = np.array([f"test/{i:05d}" for i in range(n)])
    if "segmentation" in task:
        return _segmentation(task, quality, ids, shared, own)
    if task in ("depth", "normals"):
        return _geometry(task, quality, ids, shared, own)
    return _hits(task, quality, ids, shared, own)


def _segmentation(task: str, quality: np.ndarray, ids: np.ndarray, shared: Any, own: Any) -> Outcome:
    present = shared.random((len(ids), len(CLASSES))) < 0.45
    area = np.where(present, shared.integers(40, 900, present.shape), 0)
    hardness = np.linspace(0.15, -0.15, len(CLASSES))
    iou = np.clip(quality[:, None] + hardness + 0.04 * own.standard_normal(present.shape), 0.01, 0.99)
    inter = np.floor(area * iou).astype(np.int64)
    union = area + np.floor(area * (1 - iou) * 0.4).astype(np.int64)
    samples = {"id": ids, "intersection": inter, "union": union}
    miou = Measurement("mIoU", Statistic("miou", ("intersection", "union"), scale=100.0), True, "%")
    return Outcome(samples, [miou], "mIoU", len(ids), {"class_names": list(CLASSES)})


def _geometry(task: str, quality: np.ndarray, ids: np.ndarray, shared: Any, own: Any) -> Outcome:
    pixels = shared.integers(8_000, 16_000, len(ids))
    size, unit, name = (0.9, "m", "RMSE") if task == "depth" else (45.0, "°", "angular RMSE")
    samples = {"id": ids, "squared_error": (size * (1.05 - quality)) ** 2 * pixels, "pixels": pixels}
    main = Measurement(name, Statistic("root_ratio", ("squared_error", "pixels")), False, unit)
    return Outcome(samples, [main], name, len(ids))


def _hits(task: str, quality: np.ndarray, ids: np.ndarray, shared: Any, own: Any) -> Outcome:
    draw = shared.random(len(ids))
    flip = own.random(len(ids)) < 0.06
    hit = np.where(flip, own.random(len(ids)) < quality, draw < quality).astype(np.float64)
    samples: dict[str, Any] = {"id": ids, "hit": hit}
    if task == "instance_retrieval":
        samples["domain"] = np.array([("toys", "tools", "food")[i % 3] for i in range(len(ids))])
        statistic = Statistic("group_mean", ("hit",), scale=100.0, group="domain")
        return Outcome(samples, [Measurement("mean R@1", statistic, True, "%")], "mean R@1", len(ids))
    blind = [{"hit": np.full(len(ids), 1 / len(CLASSES))}]
    name = {"classification": "kNN top-1", "zero_shot_classification": "top-1"}.get(task, "R@1")
    measured = [Measurement(name, Statistic("mean", ("hit",), scale=100.0), True, "%")]
    return Outcome(samples, measured, name, len(ids), blind=blind)


def row_data(model: str, task: str, outcome: Outcome, dataset: str = "scenes", **changes: Any) -> dict[str, Any]:
    """The `result.json` of one row; `changes` replace top-level entries."""
    protocol_name = changes.pop("protocol_name", "fast")
    table, _ = preset_table(task, protocol_file(task), protocol_name.removesuffix("+set"), dataset)
    said = ("value", "status", "source")
    entries = {k: {name: v[name] for name in said} for k, v in table.items() if isinstance(v, dict)}
    fields = changes.pop("fields", entries)
    family = changes.pop("family", model.split("-")[0])
    params = changes.pop("params", 5_000_000 + _seed(model) % 300_000_000)
    values = {name: field["value"] for name, field in fields.items()}
    digest = fingerprint({"task": task, "schema": table["schema"], "fields": values})
    speed = 40.0 + 4e9 / params
    data: dict[str, Any] = {
        "schema": 1,
        "id": fingerprint([model, task, dataset, digest])[:16],
        "created": "2026-11-24T08:00:00Z",
        "command": f"bench run --model {model} --task {task}/{dataset}",
        "seed": 0,
        "model": {
            "name": model, "family": family, "backend": "torch", "params": params, "image_size": 224, "patch_size": 14,
            "dtype": "float32", "licence": "Apache-2.0" if _seed(model) % 2 else "CC-BY-4.0",
            "weights": {"source": f"example/{model}@1a2b3c", "sha256": fingerprint([model, "weights"])},
        },
        "task": {
            "name": task, "dataset": dataset, "split": "test", "n": outcome.n, "dataset_options": {"n": str(outcome.n)},
            "dataset_digest": fingerprint([task, dataset, outcome.n]),
        },
        "protocol": {"name": protocol_name, "hash": digest, "fields": dict(fields)},
        "metrics": {m.name: _metric(m, outcome) for m in outcome.measurements},
        "main_metric": outcome.main_metric,
        "n_bad": 0,
        "details": dict(outcome.details),
        "timing": {"extract_s": 60.0, "fit_s": 4.0, "score_s": 1.0, "total_s": 65.0, "images_per_s": round(speed, 2)},
        "peak_memory_mb": round(600 + params / 4e5, 1),
        "environment": {
            "python": "3.12.4", "platform": "Linux-6.1-x86_64", "cpu": "x86-64", "threads": 4, "gpu": None,
            "packages": {"torch": "2.13.0", "numpy": "2.4.0"},
            "densebench": {"version": "0.1.0", "commit": "0123abc", "dirty": False},
        },
    }  # fmt: skip
    return {**data, **changes}


def _metric(m: Measurement, outcome: Outcome) -> dict[str, Any]:
    value, chance = m.statistic.of(outcome.samples), outcome.chance(m)
    half = 0.6 * abs(value) / np.sqrt(len(outcome.samples["id"]))
    statistic = {k: v for k, v in plain(m.statistic).items() if v is not None}
    return {
        "value": value, "ci95": [value - half, value + half],
        "higher_is_better": m.higher_is_better, "unit": m.unit, "statistic": statistic,
        **({} if chance is None else {"chance": chance}),
    }  # fmt: skip


def write_row(
    results: Path,
    model: str,
    task: str,
    skill: float = 0.6,
    n: int = 120,
    seed: int = 0,
    dataset: str = "scenes",
    **changes: Any,
) -> Path:
    """Saves one simulated row under `results`; its folder."""
    outcome = simulate(task, skill, n, model, seed)
    data = row_data(model, task, outcome, dataset, **changes)
    folder = row_folder(results, model, task, dataset, data["protocol"]["name"], data["protocol"]["hash"])
    save_json(folder, data, outcome.samples)
    return folder


def save_json(folder: Path, data: Mapping[str, Any], samples: Mapping[str, Any], *files: Mapping[str, bytes]) -> None:
    """`save` of a row that is given as its JSON."""
    save(folder, parse_row(json.loads(json.dumps(data))), samples, *files)


def write_rows(
    results: Path, skills: Mapping[str, float], tasks: Sequence[str] = NINE, n: int = 120, **changes: Any
) -> None:
    """Saves `skills` (model -> skill) × `tasks`."""
    for model, skill in skills.items():
        for task in tasks:
            write_row(results, model, task, skill, n, **changes)
