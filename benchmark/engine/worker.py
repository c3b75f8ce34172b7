"""One worker of a run on many: it loads encoders and does what it is asked, one thing at a time.

All that workers share are folders that each of them sees: the cache and the results. What is written there does not
depend on who writes it.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmark.contracts import EncoderCard, ImageSet, identity
from benchmark.contracts.progress import silent
from benchmark.engine import costs
from benchmark.engine.alike import base_of, probe, sets_of, versions
from benchmark.engine.graph import SIDE_BY_SIDE
from benchmark.engine.identity import model_stamp
from benchmark.engine.jobs import Job
from benchmark.engine.record import make_row
from benchmark.engine.report import Hooks, Report, words_of
from benchmark.engine.session import Encoded, Session
from benchmark.engine.slots import Slot
from benchmark.engine.target import Target
from benchmark.errors import BenchError, NotApplicable, UsageError, staying
from benchmark.features.extract import Share, together
from benchmark.features.plan import Planner
from benchmark.system.digest import fingerprint

KEPT = SIDE_BY_SIDE - 1  # models beside the one at work: a worker that helped another model comes back to its own
SHARE = 0.25  # of the memory, for the weights of all of them
Key = tuple[str, str]  # of a pass: digest of its pictures, fingerprint of its view
Asked = tuple[int, Sequence[int], str, Key, Sequence[int]]  # model, its jobs, who it is, and blocks of a pass


@dataclass(frozen=True)
class Brief:
    """What every worker of a run is told."""

    targets: tuple[Target, ...]
    jobs: tuple[Job, ...]
    rendered: Mapping[str, ImageSet]  # by digest: sets that must be made before they are read
    place: Path  # where the command was given
    path: tuple[str, ...]  # where it finds modules
    seen: tuple[Path, ...]  # files in the folders that all must share
    versions: Mapping[str, str | None]
    pictures: Mapping[str, str]  # by digest of a set: the digest of a few of its pictures
    debug: bool = False


@dataclass(frozen=True)
class PassPlan:
    """What a pass still lacks."""

    key: Key
    blocks: tuple[tuple[int, int], ...]  # (number, pictures) of each block that is not whole
    cost: float  # of a picture
    pixels: str = ""  # the same for passes that read the same pixels
    claims: tuple[str, ...] = ()
    rendered: str = ""


@dataclass(frozen=True)
class JobPlan:
    """What a job waits for and costs."""

    passes: tuple[Key, ...]
    cost: float
    crops: float = 0.0  # of that, crops for a head's steps: other workers may encode them


@dataclass(frozen=True)
class Opened:
    """What is to be done for one model."""

    identity: str  # of the encoder and its weights
    todo: Mapping[int, Slot]  # of the jobs, by their numbers
    jobs: Mapping[int, JobPlan]
    passes: Mapping[Key, PassPlan]
    not_applicable: Mapping[int, str]
    failed: Mapping[int, str]
    weights: int = 0  # bytes
    room: float = 0.0  # bytes that the weights of models side by side may take
    report: Report = field(default_factory=Report)  # of rows that are there already


@dataclass(frozen=True)
class Answer:
    """What came of a call."""

    failed: str = ""
    refused: str = ""  # why this worker can do nothing for this run
    usage: str = ""  # what is wrong with the words of the command
    not_applicable: str = ""
    forwards: int = 0
    encoded: tuple[Encoded, ...] = ()  # for each part of a range
    pieces: int = 0  # of another worker's steps that were made
    reused: bool = False
    opened: Opened | None = None


class Refused(BenchError):
    """This worker would make other numbers than the process that asked."""


class Worker:
    """Answers one call at a time. Its first must be `hello`."""

    def __init__(self, brief: Brief, threads: int) -> None:
        with suppress(OSError):
            os.chdir(brief.place)
        sys.path.extend(p for p in brief.path if p not in sys.path)
        import torch

        torch.set_num_threads(threads)
        self.brief, self.threads = brief, threads
        self._sessions: dict[int, Session] = {}  # those used last, by the model's number
        self._planned: dict[int, tuple[int, ...]] = {}  # model -> jobs whose passes its session knows

    def do(self, what: str, *words: Any) -> Answer:
        """The answer of the method `what`; nothing is raised but what a defect of ours raises under --debug."""
        try:
            with staying():
                answer: Answer = getattr(self, what)(*words)
                return answer
        except Refused as e:
            return Answer(refused=str(e))
        except NotApplicable as e:
            return Answer(not_applicable=str(e))
        except UsageError as e:
            return Answer(usage=str(e))
        except Exception as e:
            if self.brief.debug and not isinstance(e, BenchError):
                raise
            return Answer(failed=words_of(e))

    def hello(self) -> Answer:
        """Whether this machine has the versions and sees the files of the one that asked; else refused."""
        host = socket.gethostname()
        for name, wanted in self.brief.versions.items():
            if (mine := versions()[name]) != wanted:
                raise Refused(f"a worker on {host} has {name} {mine}, asked for was {wanted}. Install the same there")
        for file in self.brief.seen:
            if not file.exists():
                raise Refused(
                    f"a worker on {host} does not see {file.parent}. Put it on a disk that all machines share"
                )
        for images in sets_of(self.brief.jobs):
            wanted = self.brief.pictures.get(images.digest)
            if wanted and (mine := probe(images)) != wanted:
                first = images.image_id(0)
                why = "cannot read" if mine is None else "reads another picture for"
                raise Refused(f"a worker on {host} {why} {first} or one of its set. Give every machine the same data")
        return Answer()

    def prepare(self, digest: str) -> Answer:
        """Renders pictures that are not there yet."""
        self.brief.rendered[digest].prepare(silent)
        return Answer()

    def open(self, number: int, slots: Mapping[int, Slot] | None) -> Answer:
        """Loads model `number` and says what is to be done for it: for the jobs of `slots`, or, where only the loaded
        encoder can tell what it is, for all whose rows are not there."""
        target, jobs, report = self.brief.targets[number], self.brief.jobs, Report()
        session = self._loaded(number)
        if slots is None:
            stamp = model_stamp(target.name, target.options.weights, session.encoder)
            slots = target.settle(jobs, target.slots(jobs, stamp), report, Hooks())
        planned: list[int] = []
        refused: dict[int, str] = {}
        failed: dict[int, str] = {}
        for job in slots:
            try:
                with staying():
                    session.plan(jobs[job])
                planned.append(job)
            except NotApplicable as e:
                refused[job] = str(e)
            except UsageError:
                raise
            except Exception as e:
                if self.brief.debug and not isinstance(e, BenchError):
                    raise
                failed[job] = words_of(e)
        self._planned[number] = tuple(planned)
        passes = {key: self._pass(session, key) for key in session.planner.passes}
        plans = {job: self._job(session, self.brief.jobs[job]) for job in planned}
        who = fingerprint(_identity(session))
        weights, room = weight_bytes(session.encoder.card), room_for_weights(session.device)
        return Answer(opened=Opened(who, slots, plans, passes, refused, failed, weights, room, report))

    def _pass(self, session: Session, key: Key) -> PassPlan:
        shared = session.planner.passes[key]
        blocks = tuple((block, len(shared.block_range(block))) for block in shared.missing())
        base = base_of(shared.images).digest
        return PassPlan(
            key,
            blocks,
            costs.picture(shared, session.encoder.card),
            shared.pixels,
            tuple(claim.file.name for claim in shared.claims(session.options.cache)) if blocks else (),
            base if base in self.brief.rendered else "",
        )

    def _job(self, session: Session, job: Job) -> JobPlan:
        cost = crops = 0.0
        with suppress(Exception):  # a plug-in that cannot say what it costs is no reason not to run it
            cost = costs.head(job.method, session.encoder.card, job.data)
            crops = costs.crops(job.method, session.encoder.card, job.data)
        served = {id(p) for p in session.passes_of(job)}
        return JobPlan(tuple(key for key, p in session.planner.passes.items() if id(p) in served), cost, crops)

    def encode(self, *parts: Asked) -> Answer:
        """Encodes blocks of passes that see the same pixels; what one model cannot do its row will say."""
        shares = []
        for number, todo, who, key, blocks in parts:
            session = self._at_work(number, todo, who)
            shares.append(Share(session.extractor, session.planner.passes[key], blocks))
        together(shares)
        errors = [share.error for share in shares if share.error]
        if len(errors) == len(shares):
            raise errors[0]
        return Answer(encoded=tuple(Encoded(share.pictures, share.seconds) for share in shares))

    def row(self, number: int, todo: Sequence[int], who: str, job: int, slot: Slot, encoded: Encoded) -> Answer:
        """Makes a row, unless another run has made it meanwhile."""
        options = self.brief.targets[number].options
        if not options.force and slot.finished(options.cross_check):
            return Answer(reused=True)
        session = self._at_work(number, todo, who)
        before = session.extractor.forwards
        make_row(session, self.brief.jobs[job], slot, encoded, self._steps_key(who, slot))
        return Answer(forwards=session.extractor.forwards - before)

    def help(self, number: int, todo: Sequence[int], who: str, job: int, slot: Slot, seconds: float) -> Answer:
        """Encodes crops for the worker that trains the head of a row, for as long."""
        session = self._at_work(number, todo, who)
        scratch = slot.scratch(session.options.cache)
        pieces = session.help_train(self.brief.jobs[job], scratch, self._steps_key(who, slot), seconds)
        return Answer(pieces=pieces)

    def _steps_key(self, who: str, slot: Slot) -> str:
        return fingerprint([who, slot.request, self.brief.versions.get("densebench")])

    def _loaded(self, number: int) -> Session:
        """Model `number`; others that were used before it stay as long as they are few and small."""
        if (session := self._sessions.pop(number, None)) is None:
            for old in list(self._sessions)[:-KEPT]:
                self._forget(old)
            target = self.brief.targets[number]
            own = replace(target.options, device=_own_device(target.options.device), workers=self._decoders(target))
            session = Session.open(target.name, target.shown, own, silent)
            held = [*self._sessions.values(), session]
            if sum(weight_bytes(one.encoder.card) for one in held) > room_for_weights(session.device):
                for old in list(self._sessions):
                    self._forget(old)
        self._sessions[number] = session
        return session

    def _forget(self, number: int) -> None:
        self._sessions.pop(number, None)
        self._planned.pop(number, None)

    def _at_work(self, number: int, todo: Sequence[int], who: str) -> Session:
        """Model `number` with the passes of the jobs `todo`. Raises Refused where it is not `who` it should be."""
        session = self._loaded(number)
        if fingerprint(found := _identity(session)) != who:
            raise Refused(
                f"a worker on {socket.gethostname()} loads {session.shown} as weights {found['weights'][:12]}, code "
                f"{found['code']}, which is not what another has loaded. Give every machine the same files"
            )
        if self._planned.get(number) != tuple(todo):
            session.planner = Planner(session.encoder.card, session.encoder.transform, session.store)
            for job in todo:
                session.plan(self.brief.jobs[job])
            self._planned[number] = tuple(todo)
        return session

    def _decoders(self, target: Target) -> int | None:
        """Processes that decode: a worker of one core is its own."""
        if target.options.workers is not None:
            return target.options.workers
        return 0 if self.threads == 1 else min(16, self.threads - 1)


def _identity(session: Session) -> dict[str, Any]:
    return {k: v for k, v in identity(session.encoder.card).items() if k != "model"}


def weight_bytes(card: EncoderCard) -> int:
    """Bytes of an encoder's weights, as of float32."""
    return 4 * card.params


def room_for_weights(device: str) -> float:
    """Bytes that the weights of all models which a worker on `device` holds may take."""
    return SHARE * _memory(device)


def _memory(device: str) -> float:
    """Bytes of the device, or of this worker's share of the machine."""
    if device.startswith("cuda"):
        import torch

        return float(torch.cuda.mem_get_info(device)[1])
    if not hasattr(os, "sysconf"):
        return 0.0
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (os.cpu_count() or 1)


def _own_device(asked: str) -> str:
    """A worker sees no GPU but its own."""
    return "cuda" if asked.startswith("cuda") else asked
