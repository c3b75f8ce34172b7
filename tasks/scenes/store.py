"""Splits rendered once, in parallel, and kept under the cache folder with a checksum per file.

A folder appears under its name by one rename, when it is complete; a file that no longer agrees with the manifest has
the folder rendered again, whatever its times: each process reads every byte once before it relies on them. Several
processes may ask at once: one renders, the others wait.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmark.contracts import Progress
from benchmark.contracts.progress import NewProgress, silent
from benchmark.errors import BenchError
from benchmark.system import cache_users, sealed
from benchmark.system.files import FOLDER_MODE, disk_errors
from benchmark.system.paths import cache_dir
from benchmark.system.processes import locked, processors
from tasks.scenes.fill import SEED, TICK, array_names, fill, start_arrays
from tasks.scenes.golden import GOLDEN
from tasks.scenes.render import scene_captions
from tasks.scenes.splits import SPLITS
from tasks.scenes.tables import VERSION

MANIFEST = "manifest.json"
SCHEMA = 1  # of the manifest: since then sealed
IN_PROCESS = 64  # scenes: fewer are rendered without starting processes
WORDINGS = 64  # tries to make a caption unlike all before it

_found: dict[Path, Path] = {}  # place of a split -> the folder that holds it and was read through by this process


def rendered(split: str, size: int, n: int, progress: NewProgress = silent) -> Path:
    """The folder that holds (at least) the first `n` scenes of a split; rendered when it is missing or damaged.

    Files: images.npy and, for splits with targets, semantic.npy, depth.npy, normals.bin (zlib per picture) with
    normals_end.npy, captions.json. Raises BenchError when the cache cannot be written.
    """
    root = cache_dir() / "scenes"
    place = root / _name(split, size, n)
    cache_users.touch(root.parent, place)
    folder = _found.get(place)
    if folder is None or not (folder / MANIFEST).is_file():
        _found.pop(place, None)  # pruned since this process last asked
        folder = _found[place] = _ensured(place, split, size, n, progress)
    cache_users.touch(root.parent, folder)
    return folder


def _ensured(folder: Path, split: str, size: int, n: int, progress: NewProgress) -> Path:
    root = folder.parent
    for there in dict.fromkeys((root / _name(split, size, SPLITS[split].n), folder)):
        if intact(there, split):  # asked before anything is written: the cache may be one that is only read
            return there
    try:
        root.mkdir(parents=True, exist_ok=True)
        with disk_errors(folder), locked(root / f".{folder.name}.lock") as alone:
            if folder not in _found and not intact(folder, split):  # another thread or process may have been quicker
                _render_split(folder, split, size, n, alone, progress)
            _found[folder] = folder
    except OSError as e:
        raise BenchError(f"{folder}: cannot be written ({e.strerror}). Choose another cache with BENCH_CACHE") from None
    return folder


def _name(split: str, size: int, n: int) -> str:
    return f"{VERSION}-{GOLDEN[:8]}-{split}-{size}-{n}"


def intact(folder: Path, split: str) -> bool:
    """Whether the folder has a manifest, and every file of the split agrees with it; a damaged one is named."""
    path = folder / MANIFEST
    try:
        kept = {name: row["sha256"] for name, row in sealed.read_json(path, since=SCHEMA)["files"].items()}
        if lost := set(_files(split)) - set(kept):
            raise sealed.Damaged(f"{path}: does not say what {min(lost)} is")
        sealed.check_files(folder, kept)
    except FileNotFoundError:
        return False
    except (sealed.Damaged, KeyError, TypeError, AttributeError) as e:
        sealed.remake(path, e, "the split is rendered again")
        return False
    return True


def _files(split: str) -> list[str]:
    more = ["normals.bin", "normals_end.npy", "captions.json"] if SPLITS[split].targets else []
    return [*(f"{name}.npy" for name in array_names(split)), *more]


def _render_split(folder: Path, split: str, size: int, n: int, alone: bool, progress: NewProgress) -> None:
    """Renders into a folder of its own and renames it; `alone`: by the lock, no other process is doing the same."""
    for left in folder.parent.glob(f".{folder.name}.*.part") if alone else ():
        shutil.rmtree(left, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part"))
    with suppress(OSError):  # some network disks have no modes
        staging.chmod(FOLDER_MODE)  # it was made for its owner alone; others share the cache
    try:
        start_arrays(staging, split, size, n)
        _fill_in_parallel(staging, split, size, n, progress)
        if SPLITS[split].targets:
            _gather(staging, split, size)
        for tick in staging.glob("tick-*"):
            tick.unlink()
        _write_manifest(staging, split, size, n)
        if folder.exists():
            shutil.rmtree(folder)
        try:
            staging.rename(folder)
        except OSError:
            if not intact(folder, split):  # else another process, on a file system without locks, was as quick
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def workers(n: int) -> int:
    """Processes to render `n` scenes with: the processors this process may use, at most 16."""
    return 1 if n <= IN_PROCESS else min(processors(), 16, -(-n // IN_PROCESS))


def _fill_in_parallel(folder: Path, split: str, size: int, n: int, progress: NewProgress) -> None:
    count = workers(n)
    if n <= IN_PROCESS:
        fill(folder, split, size, 0, n)
        return
    edges = [n * k // count for k in range(count + 1)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
    running = []
    for start, stop in pairwise(edges):
        words = [sys.executable, "-P", "-m", "tasks.scenes.fill", str(folder), split, str(size), str(start), str(stop)]
        running.append(subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True))
    try:
        _watch(running, folder, progress(f"rendering scenes ({split}), once", n), n)
    finally:
        for process in running:
            process.kill()
            process.wait()


def _watch(running: list[subprocess.Popen[str]], folder: Path, bar: Progress, n: int) -> None:
    """Show progress until every process has ended. Raises BenchError with the message of one that failed."""
    shown = 0
    while any(process.poll() is None for process in running) and not any(process.poll() for process in running):
        time.sleep(0.05)
        done = TICK * sum(t.stat().st_size for t in folder.glob("tick-*"))
        bar.advance(done - shown)
        shown = done
    bar.advance(n - shown)
    for process in running:
        if process.returncode:
            lines = (process.stderr.read() if process.stderr else "").strip().splitlines()
            raise BenchError(lines[-1] if lines else f"scenes: a rendering process ended with {process.returncode}")


def _gather(folder: Path, split: str, size: int) -> None:
    """Join the ranges' normals and captions."""
    lengths = sorted(folder.glob("lengths-*.npy"))
    np.save(folder / "normals_end.npy", np.cumsum(np.concatenate([np.load(p, allow_pickle=False) for p in lengths])))
    with open(folder / "normals.bin", "wb") as out:
        for path in sorted(folder.glob("normals-*.bin")):
            with open(path, "rb") as part:
                shutil.copyfileobj(part, out)
            path.unlink()
    captions: list[list[str]] = []
    for path in sorted(folder.glob("captions-*.json")):
        captions += json.loads(path.read_text())
        path.unlink()
    for path in lengths:
        path.unlink()
    if SPLITS[split].unique_captions:
        captions = _worded_apart(captions, split, size)
    (folder / "captions.json").write_text(json.dumps(captions))


def _worded_apart(captions: list[list[str]], split: str, size: int) -> list[list[str]]:
    """Captions none of which serves two pictures: a later one that repeats an earlier one is worded anew."""
    used: set[str] = set()
    for index, (alt, short, long) in enumerate(captions):
        variant = 0
        while (short in used or long in used) and variant < WORDINGS:
            variant += 1
            _, short, long = scene_captions(SEED, index, size, split, variant)
        used.update((short, long))
        captions[index] = [alt, short, long]
    return captions


def _write_manifest(folder: Path, split: str, size: int, n: int) -> None:
    kept = sealed.digests(folder, sorted(path.name for path in folder.iterdir()))
    head = {"schema": SCHEMA, "version": VERSION, "golden": GOLDEN, "seed": SEED, "split": split, "size": size, "n": n}
    sealed.write_json(folder / MANIFEST, {**head, "files": {name: {"sha256": digest} for name, digest in kept.items()}})
