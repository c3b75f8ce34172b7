"""What a row says of a finished job: the fields of `result.json`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from benchmark.contracts import Outcome
from benchmark.data.overlap import note_same_files
from benchmark.engine.environment import environment, peak_gpu_memory_mb
from benchmark.engine.jobs import Job
from benchmark.engine.session import Session
from benchmark.engine.slots import Slot, place_of
from benchmark.registry import code_of
from benchmark.registry import tasks as registered
from benchmark.rows.row import SCHEMA, metrics_of
from benchmark.system.digest import fingerprint, plain
from benchmark.system.processes import PeakMemory

OVERLAPS: dict[str, list[str]] = {}  # dataset digest -> notes


def record(session: Session, job: Job, slot: Slot, outcome: Outcome, timing: dict[str, Any]) -> dict[str, Any]:
    """The `result.json` of a finished job."""
    card, protocol, options = session.encoder.card, job.protocol, session.options
    peak = session.peak or PeakMemory()
    identity = {"weights": card.weights.sha256, "unit": str(job.unit), "protocol": protocol.hash}
    return {
        "schema": SCHEMA,
        "id": fingerprint({**identity, "data": job.dataset_digest, "seed": options.seed, "request": slot.request})[:16],
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": options.command,
        "seed": options.seed,
        "request": slot.request,
        "model": {
            "name": session.shown,
            "family": card.family,
            "code": code_of(session.encoder),
            "backend": card.backend,
            "params": card.params,
            "embed_dim": card.embed_dim,
            "image_size": card.image_size,
            "patch_size": card.patch_size,
            "dtype": card.dtype,
            "stored_as": options.store,
            "licence": card.licence,
            "options": dict(card.options),
            "transform": plain(session.encoder.transform),
            "weights": plain(card.weights),
        },
        "task": {
            "name": job.unit.task,
            "dataset": job.unit.dataset,
            "version": registered()[job.unit.task].get("version", 1),
            "split": list(job.data)[-1],
            "n": outcome.n,
            "limit": options.limit,
            "dataset_digest": job.dataset_digest,
            **({"dataset_options": chosen} if (chosen := dict(options.dataset_options)) else {}),
            **({"place": place} if (place := place_of(job.unit)) else {}),
            **({"ground_truth": truth} if (truth := list(job.data.values())[-1].truth) else {}),
        },
        "protocol": {
            "name": protocol.name,
            "hash": protocol.hash,
            "schema": protocol.schema,
            "fields": protocol.fields(),
        },
        "metrics": metrics_of(outcome, options.seed),
        "main_metric": outcome.main_metric,
        "details": plain(outcome.details),
        "kept_predictions": slot.pictures,
        "n_bad": len(job.bad),
        "bad": job.bad,
        "partial": job.short,
        "notes": [*job.notes, *_overlap(job)],
        "timing": timing,
        "peak_memory_mb": round(peak.mb(), 1),
        "peak_memory_method": peak.method,
        "peak_gpu_memory_mb": peak_gpu_memory_mb(session.device),
        "environment": environment(session.device),
    }


def _overlap(job: Job) -> list[str]:
    """What an official train and test split have in common; asked once for all tasks and models on them."""
    if job.unit.path or "train" not in job.data:
        return []
    key = job.dataset_digest
    if key not in OVERLAPS:
        OVERLAPS[key] = [f"{job.unit.dataset}: {line}" for line in note_same_files(job.data)]
    return OVERLAPS[key]
