"""Files of our own with a digest inside: what is read back is what was written, or it is made again.

One flipped bit in a size, a step or a number makes another file that is whole to every parser. So all that a later run
reads back is written and read here: JSON with the sha256 of its content under SEAL, tensors with the sha256 of the
whole file in the header's metadata, arrays with one more array. Files of another kind have theirs in a sealed JSON
beside them. A file from before
there were seals has none: each reader says since which schema one has to be there.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.errors import BenchError, first_line
from benchmark.system.digest import plain, sha256_file
from benchmark.system.escaping import MARKS
from benchmark.system.files import utf8, write_bytes

if TYPE_CHECKING:
    import numpy as np
    import torch

log = logging.getLogger("densebench.stored")
SEAL = "sha256"
DIGITS = 64
BLANK = b"0" * DIGITS
IN_HEADER = re.compile(rb'"sha256":"([0-9a-f]{64})"')
_said: set[tuple[Path, str]] = set()


class Damaged(BenchError):
    """A stored file is not what was written. The message names the file and says why."""


def remake(path: Path, why: object, then: str = "it is made again") -> None:
    """Says once in a process that the stored file `path` cannot be used, and what is done instead."""
    if (path, then) not in _said:
        _said.add((path, then))
        said = str(why)
        log.warning("%s; %s", said if said.startswith(str(path)) else f"{path}: {said}", then)


# ------------------------------------------------------------------------------------------------------------- JSON


def seal_of(data: Mapping[str, Any]) -> str:
    """sha256 over the content of a JSON object, SEAL left out: spaces and the order of keys do not count."""
    kept = {k: v for k, v in data.items() if k != SEAL}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def json_file(data: Mapping[str, Any]) -> bytes:
    """`data` as a JSON file with its seal. Raises TypeError for what is no JSON."""
    there = json.loads(json.dumps(plain(data)))  # as it will be read: keys are strings, tuples are lists
    text = json.dumps({**there, SEAL: seal_of(there)}, indent=1, ensure_ascii=False)
    return utf8(MARKS.sub(lambda found: json.dumps(found[0])[1:-1], text) + "\n")


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """`write_atomic` of `json_file`."""
    write_bytes(path, json_file(data))


def read_json(path: Path, since: int = 0) -> dict[str, Any]:
    """The JSON object in `path`, its seal taken off; one of a `schema` before `since` (0 where it says none) needs
    none.

    Raises FileNotFoundError where there is none, Damaged for every other reason not to use it.
    """
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as e:
        raise Damaged(f"{path}: is damaged ({first_line(e)})") from None
    if not isinstance(data, dict):
        raise Damaged(f"{path}: is damaged (no JSON object)")
    check_seal(path, data, since)
    data.pop(SEAL, None)
    return data


def check_seal(path: Path, data: Mapping[str, Any], since: int = 0) -> None:
    """Raises Damaged where the seal in `data`, as read from `path`, is not that of its content, or where it has to be
    and is not."""
    schema = data.get("schema", 0)
    needed = not isinstance(schema, int) or schema >= since
    if (needed or SEAL in data) and data.get(SEAL) != seal_of(data):
        raise Damaged(f"{path}: is damaged (its content does not agree with its checksum)")


def digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """name -> sha256 of the files `names` in `folder`, to be kept in a sealed JSON beside them."""
    return {name: sha256_file(folder / name) for name in names}


def check_files(folder: Path, kept: Mapping[str, str]) -> None:
    """Raises Damaged naming the first file that is not the one whose digest was `kept`."""
    for name, digest in kept.items():
        try:
            if sha256_file(folder / name) == digest:
                continue
            why = "its content does not agree with its checksum"
        except OSError as e:
            why = e.strerror or type(e).__name__
        raise Damaged(f"{folder / name}: is damaged ({why})")


CHECKSUMS = "densebench-checksums.json"


def write_checksums(folder: Path, names: Iterable[str]) -> None:
    """Writes CHECKSUMS beside the files `names` of `folder`, whose own formats have no place for a digest."""
    write_json(folder / CHECKSUMS, {"schema": 1, "files": digests(folder, names)})


def check_written(path: Path, digest: str | None = None) -> None:
    """Raises Damaged where CHECKSUMS beside `path` says that another content was written; `digest`: its sha256, where
    it is known already. Files without CHECKSUMS beside them are others' and are taken as they are."""
    try:
        kept = read_json(path.with_name(CHECKSUMS), since=1)["files"].get(path.name)
    except FileNotFoundError:
        return
    except (KeyError, AttributeError):
        raise Damaged(f"{path.with_name(CHECKSUMS)}: is damaged (it holds no checksums). Delete it") from None
    if kept is not None and kept != (digest or sha256_file(path)):
        raise Damaged(
            f"{path}: is damaged (its content does not agree with {CHECKSUMS}). Take it again, or delete {CHECKSUMS} "
            "where it was changed on purpose"
        )


# ---------------------------------------------------------------------------------------------------------- tensors


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, str]) -> None:
    """Writes `tensors_file` through a temporary name."""
    write_bytes(path, tensors_file(tensors, facts))


def tensors_file(tensors: Mapping[str, torch.Tensor], facts: Mapping[str, str]) -> bytes:
    """A safetensors file with `facts` as its metadata; the seal is over the whole file, its own digits 0."""
    from safetensors.torch import save

    content = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    blank = save(content, {**facts, SEAL: BLANK.decode("ascii")})
    at = _seal_at(blank)
    digest = hashlib.sha256(blank).hexdigest().encode("ascii")
    return b"".join((memoryview(blank)[:at], digest, memoryview(blank)[at + DIGITS :]))


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """(tensors, facts) of `write_tensors`. Raises FileNotFoundError where there is none, Damaged for one that was
    changed, or was written without a seal."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load

    try:
        content = path.read_bytes()
        at = _seal_at(content)
        digest = hashlib.sha256(memoryview(content)[:at])
        for part in (BLANK, memoryview(content)[at + DIGITS :]):
            digest.update(part)
        if digest.hexdigest().encode("ascii") != content[at : at + DIGITS]:
            raise ValueError("its content does not agree with its checksum")
        with safe_open(path, "pt") as f:
            facts = dict(f.metadata() or {})
        return load(content), {k: v for k, v in facts.items() if k != SEAL}
    except FileNotFoundError:
        raise
    except (OSError, ValueError, SafetensorError) as e:
        raise Damaged(f"{path}: is damaged ({first_line(e)})") from None


def _seal_at(content: bytes) -> int:
    """Where the digits of the seal begin. Raises ValueError where there is none in the header."""
    found = IN_HEADER.search(content, 8, 8 + int.from_bytes(content[:8], "little"))
    if found is None:
        raise ValueError("it has no checksum")
    return found.start(1)


# ----------------------------------------------------------------------------------------------------------- arrays


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """`write_atomic` of an .npz file of plain `arrays` and, under SEAL, the sha256 of all of them."""
    import numpy as np

    content = io.BytesIO()
    np.savez(content, **arrays, **{SEAL: np.frombuffer(_arrays_digest(arrays), np.uint8)})  # type: ignore[arg-type]
    write_bytes(path, content.getvalue())


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of `write_arrays`. Raises FileNotFoundError where there is none, Damaged for one that was changed."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as saved:
            arrays = {name: saved[name] for name in saved.files}
        if arrays.pop(SEAL).tobytes() != _arrays_digest(arrays):
            raise ValueError("its content does not agree with its checksum")
        return arrays
    except FileNotFoundError:
        raise
    except Exception as e:  # whatever zip, zlib and numpy say of a damaged one
        raise Damaged(f"{path}: is damaged ({first_line(e)})") from None


def _arrays_digest(arrays: Mapping[str, np.ndarray]) -> bytes:
    total = hashlib.sha256()
    for name in sorted(arrays):
        total.update(json.dumps([name, arrays[name].dtype.str, arrays[name].shape]).encode("ascii"))
        total.update(arrays[name].tobytes())
    return total.digest()
