"""Files of our own that are read back say what they should hold: a bit that turned on disk is noticed, never believed.

JSON carries a digest of all its other keys, a safetensors file one of its tensors and its other metadata. What a reader
does with a damaged file is its own affair: caches make it again, states of training are refused by name.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.files import write_named

if TYPE_CHECKING:
    import torch

DIGEST = "digest"
log = logging.getLogger("densebench.damage")


class Damaged(ValueError):
    """A file does not hold what was written into it."""


@cache
def remade(path: Path) -> None:
    """Says in one line, once, that a damaged file of the cache is made again."""
    log.warning("%s: damaged (it does not hold what was written); it is made again", path)


def seal(content: Mapping[str, Any], *, indent: int | None = 1) -> str:
    """JSON text of `content` with the digest of all of it under `digest`."""
    return json.dumps({**content, DIGEST: _digest(content)}, indent=indent, ensure_ascii=False)


def unseal(text: str) -> dict[str, Any]:
    """The content of `seal`. Raises Damaged when it is not what was written, is no JSON object or has no digest."""
    try:
        content = json.loads(text)
        given = content.pop(DIGEST)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise Damaged(f"no sealed JSON ({type(e).__name__})") from None
    if given != _digest(content):
        raise Damaged("its digest is that of another content")
    return dict(content)


def read_sealed(path: Path) -> dict[str, Any] | None:
    """The content of a sealed JSON file; None where there is none. Raises Damaged naming a file that is not whole."""
    try:
        return unseal(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as e:
        raise Damaged(f"{path}: damaged ({e})") from None


def _digest(content: Mapping[str, Any]) -> str:
    """Of what a reader of the JSON gets, whatever its spaces and the order of its keys."""
    plain = json.loads(json.dumps({k: v for k, v in content.items() if k != DIGEST}))
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def seal_tensors(path: Path, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, str] | None = None) -> None:
    """Writes `tensors` (of any device) and `facts` as one safetensors file, whole or not at all.

    Raises BenchError when the disk is full or the folder cannot be written.
    """
    from safetensors.torch import save_file

    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    about = {**(facts or {}), DIGEST: _tensors_digest(whole, facts or {})}
    write_named(path, lambda temporary: save_file(whole, temporary, about))


def unseal_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]] | None:
    """(tensors on the CPU, facts) of a file of `seal_tensors`; None where there is none. Raises Damaged naming it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as f:
            facts = dict(f.metadata() or {})
            tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 - no mapping
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, ValueError, TypeError, RuntimeError) as e:
        raise Damaged(f"{path}: damaged ({(str(e).splitlines() or [type(e).__name__])[0]})") from None
    if facts.pop(DIGEST, None) != _tensors_digest(tensors, facts):
        raise Damaged(f"{path}: damaged (its digest is that of another content)")
    return tensors, facts


def _tensors_digest(tensors: Mapping[str, torch.Tensor], facts: Mapping[str, str]) -> str:
    import torch

    total = hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode("ascii"))
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode("ascii"))
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
