"""One loaded encoder, and everything that the jobs it does share: the one place where an encoder meets a job."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.contracts import Encoder, EncoderCard, Outcome, Task, no_text_tower
from benchmark.contracts.progress import NewProgress, silent
from benchmark.engine.context import Context
from benchmark.engine.environment import forget_gpu_peak
from benchmark.engine.jobs import Job
from benchmark.engine.loading import device_of, open_encoder, resolve_device
from benchmark.engine.options import RunOptions
from benchmark.engine.shared_steps import help_train
from benchmark.errors import BenchError, NotApplicable
from benchmark.features.extract import Extractor
from benchmark.features.plan import Pass, Planner
from benchmark.features.store import FeatureStore, close_shards
from benchmark.registry import models
from benchmark.rows.schema import Timing
from benchmark.system.claims import claimed
from benchmark.system.digest import fingerprint
from benchmark.system.files import write_text
from benchmark.system.processes import PeakMemory, give_back


@dataclass(frozen=True)
class Encoded:
    """Pictures that other processes encoded, and the seconds that took them."""

    pictures: int = 0
    seconds: float = 0.0


@dataclass
class Session:
    """An encoder at work."""

    encoder: Encoder
    shown: str  # its name in rows
    options: RunOptions
    device: str
    store: FeatureStore
    planner: Planner
    extractor: Extractor
    progress: NewProgress = silent
    peak: PeakMemory | None = None

    @classmethod
    def of(cls, encoder: Encoder, options: RunOptions, device: str, progress: NewProgress = silent) -> Session:
        """A session of an encoder that is loaded already."""
        store = FeatureStore(options.cache / "features", options.store)
        planner = Planner(encoder.card, encoder.transform, store)
        extractor = Extractor(encoder, device, options.batch_size, options.workers, progress)
        return cls(encoder, encoder.card.name, options, device, store, planner, extractor, progress)

    @classmethod
    def open(cls, name: str, shown: str, options: RunOptions, progress: NewProgress) -> Session:
        """Loads the encoder and, the first time it is seen, checks that it keeps its contract."""
        close_shards()  # of the model before: what is mapped counts as resident
        peak = PeakMemory()
        forget_gpu_peak(resolve_device(options.device))
        encoder = encoder_of(name, options)
        device = device_of(encoder, options.device)
        if options.check:
            _check_once(encoder, device, options, name)
        session = cls.of(encoder, options, device, progress)
        session.shown, session.peak = shown, peak
        return session

    def refusal(self, job: Job) -> str | None:
        """Why the encoder cannot do the job, or None."""
        return refusal(job.task, self.encoder.card, job.protocol.values)

    def plan(self, job: Job) -> bool:
        """Joins what the job needs to the shared passes; True when that worked. Raises NotApplicable."""
        if reason := self.refusal(job):
            raise NotApplicable(reason)
        self.planner.add(tuple(job.method.wanted(self.encoder.card, job.data).values()))
        return True

    def passes_of(self, job: Job) -> list[Pass]:
        """The passes that serve the job, each once."""
        needs = job.method.wanted(self.encoder.card, job.data).values()
        return list({id(p): p for p in map(self.planner.of, needs)}.values())

    def run(
        self, job: Job, scratch: Path, look_at: Sequence[int] = (), encoded: Encoded = Encoded(), shared: str = ""
    ) -> tuple[Outcome, Timing]:
        """Extracts what is missing, runs the task: its outcome, and where the seconds went.

        `look_at`: of which test samples pictures are wanted, where not of the best, median and worst; `encoded`: what
        was extracted for the job by others; `shared`: the key under which others may help to train its head."""
        give_back()  # what the job before has freed is not this one's
        started = time.perf_counter()
        method = job.method
        before, extract_s = self.extractor.forwards, encoded.seconds
        for wanted in self.passes_of(job):
            with claimed(wanted.claims(self.options.cache)):  # another run's work is waited for, not done again
                extract_s += self.extractor.run(wanted)
        pictures = encoded.pictures + self.extractor.forwards - before
        if pictures:
            give_back()  # what the encoder's batches took is free for the head
        context = self._context(job, scratch, look_at, shared)
        outcome = method.run(context)
        if not isinstance(outcome, Outcome):
            raise BenchError(f"{job.unit}: run of {type(method).__name__} gives {type(outcome).__name__}, no Outcome")
        timing = Timing(
            extract_s=round(extract_s, 3),
            fit_s=round(outcome.fit_s, 3),
            score_s=round(outcome.score_s, 3),
            total_s=round(encoded.seconds + time.perf_counter() - started, 3),
            images_per_s=round(pictures / extract_s, 2) if pictures and extract_s else None,
            trained_by=1 + len(context.makers) if context.makers else None,
        )
        return outcome, timing

    def help_train(self, job: Job, scratch: Path, shared: str, seconds: float) -> int:
        """Encodes crops for another process that trains the job's head: pieces of steps (`shared_steps`) made."""
        context = self._context(job, scratch, shared=shared)
        source = job.method.step_source(context)
        return help_train(source, context.pieces(source), seconds) if source else 0

    def _context(self, job: Job, scratch: Path, look_at: Sequence[int] = (), shared: str = "") -> Context:
        return Context(
            live=self.encoder,
            planner=self.planner,
            store=self.store,
            data=job.data,
            needs=job.method.wanted(self.encoder.card, job.data),
            seed=self.options.seed,
            device=self.device,
            scratch=scratch,
            keep_predictions=len(look_at) or self.options.save_predictions,
            look_at=look_at,
            cross_check=self.options.cross_check,
            new_progress=self.progress,
            shared=shared,
        )


def refusal(task: Task, card: EncoderCard, protocol: Any) -> str | None:
    """Why the encoder cannot do the task, or None; of a model by name that reads no text, what its row says of that."""
    reason = task.refusal(card, protocol)
    why = models().get(card.name, {}).get("no_text") if reason and reason == no_text_tower(card) else None
    return f"{reason}: {why}" if why else reason


def encoder_of(name: str, options: RunOptions) -> Encoder:
    """The encoder called `name`, loaded as `options` have it. Raises as `open_encoder`."""
    return open_encoder(
        name,
        weights=options.weights,
        backend=options.backend,
        device=options.device,
        dtype=options.dtype,
        offline=options.offline,
        trust_remote_code=options.trust_remote_code,
        options=options.model_options,
    )


def check_command(name: str, options: RunOptions) -> str:
    """`bench check` of the encoder that `encoder_of` loads, not of other weights or another number type."""
    made = options.model_options
    given = {
        "--weights": options.weights,
        "--backend": None if options.backend == "torch" else options.backend,
        "--dtype": None if options.dtype == "auto" else options.dtype,
        "--gelu": made.get("gelu"),
        "--positions": made.get("positions"),
    }
    words = [word for option, value in given.items() if value is not None for word in (option, value)]
    words += ["--compile"] * ("compile" in made) + ["--trust-remote-code"] * options.trust_remote_code
    return shlex.join(["bench", "check", "--model", name, *words])


def _check_once(encoder: Encoder, device: str, options: RunOptions, name: str) -> None:
    """The cheap conformance check, once for each weights, code version and dtype; raises BenchError when it fails."""
    card = encoder.card
    stamp = (
        options.cache
        / "checked"
        / fingerprint([card.weights.sha256, card.code_version, card.backend, card.dtype, card.options])
    )
    if stamp.exists():
        return
    from benchmark.check import check_encoder

    golden = models().get(name, {}).get("golden_tokens")
    bad = [f for f in check_encoder(encoder, cheap=True, device=device, golden=golden).findings if not f.ok]
    if bad:
        reason = bad[0].detail if bad[0].detail.endswith(("?", ".")) else f"{bad[0].detail}."
        check = check_command(name, options)
        raise BenchError(f"{card.name} breaks the encoder contract: {bad[0].name}: {reason} See {check}")
    write_text(stamp, card.name + "\n")
