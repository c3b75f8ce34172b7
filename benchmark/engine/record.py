"""What a row says of a finished job: the fields of `result.json`."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from benchmark.contracts import Outcome
from benchmark.data.overlap import note_same_files
from benchmark.engine.environment import environment, peak_gpu_memory_mb
from benchmark.engine.jobs import Job
from benchmark.engine.report import Note, Report
from benchmark.engine.session import Encoded, Session
from benchmark.engine.slots import NOT_APPLICABLE, Slot, place_of
from benchmark.heads.kept import head_file
from benchmark.registry import code_of, datasets
from benchmark.registry import tasks as registered
from benchmark.rows.row import HEAD, Row, metrics_of, read_row, save
from benchmark.rows.schema import (
    SCHEMA,
    ModelFacts,
    ProtocolFacts,
    ProtocolField,
    RowData,
    TaskFacts,
    Timing,
    Weights,
)
from benchmark.system import cache_users, sealed
from benchmark.system.digest import fingerprint, plain
from benchmark.system.processes import PeakMemory

OVERLAPS: dict[str, list[str]] = {}  # dataset digest -> notes


def record(session: Session, job: Job, slot: Slot, outcome: Outcome, timing: Timing) -> RowData:
    """The `result.json` of a finished job."""
    card, protocol, options = session.encoder.card, job.protocol, session.options
    peak = session.peak or PeakMemory()
    identity = {"weights": card.weights.sha256, "unit": str(job.unit), "protocol": protocol.hash}
    asked = {**identity, "data": job.dataset_digest, "seed": options.seed, "request": slot.request}
    return RowData(
        schema=SCHEMA,
        id=fingerprint(asked)[:16],
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=options.command,
        seed=options.seed,
        request=slot.request,
        model=ModelFacts(
            name=session.shown,
            asked=slot.asked,
            family=card.family,
            code=code_of(session.encoder),
            backend=card.backend,
            params=card.params,
            embed_dim=card.embed_dim,
            image_size=card.image_size,
            patch_size=card.patch_size,
            dtype=card.dtype,
            stored_as=options.store,
            licence=card.licence,
            options=dict(card.options),
            transform=plain(session.encoder.transform),
            weights=Weights(source=card.weights.source, sha256=card.weights.sha256),
        ),
        task=TaskFacts(
            name=job.unit.task,
            dataset=job.unit.dataset,
            version=registered()[job.unit.task].get("version", 1),
            split=list(job.data)[-1],
            n=outcome.n,
            limit=options.limit_of(job.unit),
            dataset_digest=job.dataset_digest,
            dataset_options=dict(options.dataset_options) or None,
            place=place_of(job.unit),
            ground_truth=list(job.data.values())[-1].truth,
        ),
        protocol=ProtocolFacts(
            name=protocol.name,
            hash=protocol.hash,
            schema=protocol.schema,
            fields={name: ProtocolField(**said) for name, said in protocol.fields().items()},
        ),
        metrics=metrics_of(outcome, options.seed),
        main_metric=outcome.main_metric,
        details=outcome.details,
        kept_predictions=slot.pictures,
        n_bad=len(job.bad),
        bad=tuple(job.bad),
        partial=tuple(job.short),
        notes=(*job.notes, *_overlap(job)),
        timing=timing,
        peak_memory_mb=round(peak.mb(), 1),
        peak_memory_method=peak.method,
        peak_gpu_memory_mb=peak_gpu_memory_mb(session.device),
        environment=environment(session.device),
    )


def make_row(session: Session, job: Job, slot: Slot, encoded: Encoded = Encoded(), shared: str = "") -> Row:
    """Runs the job and saves its row; `encoded` and `shared` as in `Session.run`."""
    scratch = slot.scratch(session.options.cache)
    cache_users.touch(session.options.cache, scratch)
    outcome, timing = session.run(job, scratch, encoded=encoded, shared=shared)
    row, files = record(session, job, slot, outcome, timing), dict(outcome.files)
    if slot.head and outcome.head is not None:
        said = {"model": session.encoder.card.name, "task": str(job.unit), "protocol": row.protocol.name}
        values = {name: field.value for name, field in row.protocol.fields.items()}
        said |= {"schema": job.protocol.schema, "fields": json.dumps(values), "protocol_hash": row.protocol.hash}
        files[HEAD] = head_file(outcome.head, session.encoder, said)
    save(slot.folder, row, outcome.samples, files)
    slot.clear_scratch(session.options.cache)
    return read_row(slot.folder)


def refuse(report: Report, slot: Slot, note: Note) -> None:
    """Reports that a job is not applicable, and writes it down."""
    report.not_applicable.append(note)
    sealed.write_json(slot.folder / NOT_APPLICABLE, {"reason": note.text, "request": slot.request})


def _overlap(job: Job) -> list[str]:
    """What an official train and test split have in common; asked once for all tasks and models on them."""
    if job.unit.path:
        return []
    key = job.dataset_digest
    if key not in OVERLAPS:
        foreign = "plug_in" in datasets()[job.unit.dataset]  # whoever made the splits, we do not know them
        OVERLAPS[key] = [f"{job.unit.dataset}: {line}" for line in note_same_files(job.data, decode=foreign)]
    return OVERLAPS[key]
