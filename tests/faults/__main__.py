"""`python tests/faults KIND`: the long forms of what tests/faults tries in short in CI. docs/reliability.md."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parents[n]) for n in range(3)]


def main() -> None:
    """One kind of disturbance, as often as asked."""
    parser = argparse.ArgumentParser(prog="python tests/faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    kinds = parser.add_subparsers(dest="kind", required=True)
    kills = kinds.add_parser("kills", help="kill at random moments, and the same command again")
    kills.add_argument("--job", choices=["scenes", "training", "head", "distillation"], default="scenes")
    kills.add_argument("--signal", choices=["KILL", "TERM", "USR1"], default="KILL", help="TERM and USR1: recipes only")
    kills.add_argument("--kills", type=int, default=60)
    kills.add_argument("--brief", action="store_true", help="as in CI: the short form of every job")
    workers = kinds.add_parser("workers", help="kill workers of a run on two at random moments (needs the extra ray)")
    workers.add_argument("--kills", type=int, default=10)
    workers.add_argument("--steps", type=int, default=200, help="of each head")
    nodes = kinds.add_parser("nodes", help="machines leave a cluster during a run and others come (needs ray)")
    nodes.add_argument("--steps", type=int, default=60, help="of each head")
    nodes.add_argument("--pictures", type=int, default=150)
    flips = kinds.add_parser("flips", help="one flipped bit in every kind of stored file")
    flips.add_argument("--flips", type=int, default=5000)
    tables = kinds.add_parser("tables", help="four processes that finish within 0.1 s")
    tables.add_argument("--rounds", type=int, default=200)
    disturb = kinds.add_parser("disturb", help="disks, file handles, clocks, locks, several processes on one folder")
    disturb.add_argument("--job", choices=["scenes", "head", "training", "distillation"], default="scenes")
    disturb.add_argument("--disks", action="store_true", help="full and read-only disks alone")
    disturb.add_argument("--rounds", type=int, default=5)
    disturb.add_argument("--brief", action="store_true", help="as in CI: the short form of the job")
    fuzzing = kinds.add_parser("fuzz", help="changed bytes in files of others; with atheris, led by coverage")
    fuzzing.add_argument("--minutes", type=float, default=20, help="of processor time, all readers together")
    fuzzing.add_argument("--reader", action="append", help="only this one; may be repeated")
    fuzzing.add_argument("--blind", action="store_true", help="without atheris, also where it is installed")
    fuzzing.add_argument("--keep", type=Path, help="a folder for the inputs behind findings")
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        said = FORMS[asked.kind](asked, Path(place))
    print(f"{said} ({time.monotonic() - began:.0f} s)")


def _tell(line: str) -> None:
    print(line, flush=True)


def _kills(asked: argparse.Namespace, place: Path) -> str:
    from jobs import JOBS
    from kills import kill

    if asked.brief:
        short = {name: job.brief for name, job in JOBS.items() if job.brief}
        for name, run in short.items():
            assert kill(run, place / name, asked.kills, asked.seed, _tell, twice=False).struck == asked.kills
        return f"{', '.join(short)}: {asked.kills} kills each, 0 files differ"
    how = signal.Signals[f"SIG{asked.signal}"]
    found = kill(JOBS[asked.job].run, place, asked.kills, asked.seed, _tell, how=how)
    return f"{asked.job}: {found.struck} {how.name} in {found.runs} runs, 0 of {found.compared} files differ"


def _workers(asked: argparse.Namespace, place: Path) -> str:
    from workers import kill_workers

    found = kill_workers(place, asked.kills, asked.seed, asked.steps, _tell)
    return f"{found.struck} workers killed in {found.runs} runs, 0 of {found.compared} files differ"


def _nodes(asked: argparse.Namespace, place: Path) -> str:
    from nodes import nodes_leave

    found = nodes_leave(place, asked.steps, asked.pictures, _tell)
    gone = f"{len(found.moments)} nodes left ({len(found.pieces)} pieces lost their worker)"
    return f"{gone}, 0 of {found.compared} files differ"


def _flips(asked: argparse.Namespace, place: Path) -> str:
    from stored import try_all

    return f"{try_all(place, asked.flips, asked.seed, _tell)} flips, 0 scored"


def _tables(asked: argparse.Namespace, place: Path) -> str:
    from tables import PROCESSES, finish_together

    missing, spread = finish_together(place, asked.rounds, asked.seed)
    return f"{asked.rounds} rounds of {PROCESSES} processes within {spread:.3f} s (median): {missing} rows missing"


def _disturb(asked: argparse.Namespace, place: Path) -> str:
    from disturbances import disturb
    from jobs import JOBS

    job = JOBS[asked.job]
    run = job.brief if asked.brief and job.brief else job.run
    done = disturb(run, place, asked.rounds, asked.seed, _tell, asked.disks)
    return f"{done} disturbed runs of {asked.job}, 0 differ"


def _fuzz(asked: argparse.Namespace, place: Path) -> str:
    from fuzz import fuzz

    inputs, found, how = fuzz(place, asked.minutes, asked.seed, asked.reader, asked.blind, _tell, asked.keep)
    return f"{inputs} inputs, {how}: {found} findings"


FORMS = {
    "disturb": _disturb, "fuzz": _fuzz, "kills": _kills, "flips": _flips, "nodes": _nodes, "tables": _tables,
    "workers": _workers,
}  # fmt: skip


if __name__ == "__main__":
    main()
