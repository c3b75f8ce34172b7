"""Files of a data set on the Hugging Face hub, fetched as they are; access-restricted ones need a login first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmark.data.tolerance import tolerating
from benchmark.errors import BenchError, DataError, first_line
from benchmark.registry import open_dataset
from tasks.datasets.parts import absent_parts

MAGIC = b"PAR1"  # a parquet file begins and ends with it


def lacking(folder: Path, patterns: list[str]) -> str:
    """What `folder` lacks of a repository's files: by the `-i-of-N` in the names of each of `patterns`; or ""."""
    for pattern in patterns:
        files = sorted(p for p in folder.glob(pattern) if p.suffix == ".parquet")
        if not files:
            return f"no {pattern} in {folder}"
        if absent := absent_parts(files):
            there = f"{len(files)} of {len(files) + len(absent)}"
            return f"{there} of {folder / pattern} are there, first missing: {absent[0]}"
        if damaged := next((p for p in files if _cut(p)), None):
            return f"{damaged} is cut short"
    return ""


def _cut(file: Path) -> bool:
    with open(file, "rb") as f:
        begins = f.read(len(MAGIC)) == MAGIC
        f.seek(max(0, file.stat().st_size - len(MAGIC)))
        return begins and f.read() != MAGIC


def from_hub(name: str, hub: dict[str, Any], data: Path, offline: bool) -> str:
    """Fetches what `data` lacks of `hub`'s patterns and says what is there now. Another layout that is whole will do.

    Raises DataError when something is missing still; the same command goes on from there.
    """
    folder, repo, revision = data / name, hub["repo"], hub["revision"]
    if not (lack := lacking(folder, hub["patterns"])):
        return f"{folder} has all parquet files of {repo}"
    if _readable(name, data):
        return f"{name} is in {data}, whole"
    if offline:
        wanted = " ".join(f"--include '{p}'" for p in hub["patterns"])
        command = f"hf download {repo} --repo-type dataset --revision {revision} {wanted} --local-dir {folder}"
        raise DataError(f"{name}: --offline, and {lack}. Fetch it on another machine: {command}")
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(
            repo, repo_type="dataset", revision=revision, local_dir=folder, allow_patterns=hub["patterns"]
        )
    except Exception as e:  # the hub's own errors, and those of the client and of the layers below it
        reason = first_line(e)
    else:  # where the hub cannot be reached, an old folder is handed back as if it were whole
        reason = "the hub gave no more"
    if not (lack := lacking(folder, hub["patterns"])):
        return f"fetched {repo}@{revision[:12]} to {folder}"
    raise DataError(
        f"{name}: https://huggingface.co/datasets/{repo} could not be fetched whole ({reason}): {lack}. "
        "The same command goes on where it stopped"
    )


def _readable(name: str, data: Path) -> bool:
    """Whether every split of the data set is there in some other layout that is read, and has its official size."""
    try:
        dataset = open_dataset(name, data)
        with tolerating() as allowed:
            for split in dataset.info.splits:
                dataset.data(dataset.info.kinds[0], split)
    except BenchError:
        return False
    return not allowed.short
