"""Trained heads as files: safetensors whose metadata say which encoder they read, and how."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from benchmark.contracts import Encoder, HeadKind, KeptHead, identity
from benchmark.errors import DataError, UsageError, first_line
from benchmark.system.digest import canonical_json, plain

FIRST, FORMAT = "densebench head 1", "densebench head 2"
AGAIN = "Make it again with bench run --save-heads --force"


def encoder_facts(encoder: Encoder) -> dict[str, str]:
    """What a head is good for: all that decides an encoder's features but their number type."""
    facts = dict(identity(encoder.card))
    weights, options = facts.pop("weights"), json.dumps(facts.pop("options"), sort_keys=True)
    transform = json.dumps(plain(encoder.transform), sort_keys=True)
    for other in ("model", "dtype"):
        del facts[other]
    return {"weights": weights, "transform": transform, **facts, "options": options}


def head_file(head: KeptHead, encoder: Encoder, facts: Mapping[str, str]) -> bytes:
    """The bytes of the file; `facts` are the row's: model, task, protocol with its schema, fields and hash."""
    from safetensors.torch import save

    meta = {"format": FORMAT, "kind": head.kind, "use": json.dumps(dict(head.use), ensure_ascii=False)}
    meta |= {**encoder_facts(encoder), **facts}
    whole = {name: _single(values.detach().cpu()).contiguous() for name, values in head.arrays.items()}
    return bytes(save(whole, {**meta, "sha256": _digest(whole, meta)}))


def _single(values: Any) -> Any:
    return values.float() if values.is_floating_point() else values


def _digest(arrays: Mapping[str, Any], meta: Mapping[str, str]) -> str:
    """Over what a head is and says of itself; the first format held its arrays alone."""
    names = ("weight", "bias") if meta["format"] == FIRST else sorted(arrays)
    whole = hashlib.sha256()
    for name in names:
        whole.update(arrays[name].numpy().tobytes())
    if meta["format"] != FIRST:
        shapes = {name: list(arrays[name].shape) for name in names}
        whole.update(canonical_json([shapes, {k: v for k, v in meta.items() if k != "sha256"}]).encode())
    return whole.hexdigest()


def read_head(path: Path) -> tuple[KeptHead, dict[str, str]]:
    """The head of a file and its metadata. Raises UsageError where there is none, DataError where it is no head."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UsageError(f"--head {path}: no such file. bench run --save-heads keeps one beside a row")
    try:
        with safe_open(path, "pt") as file:
            meta = dict(file.metadata() or {})
            if meta.get("format") not in (FIRST, FORMAT) or meta.get("kind") not in get_args(HeadKind):
                raise DataError(f"{path}: is no head that bench run --save-heads has kept")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        sound = meta.get("sha256") == _digest(arrays, meta)
        head = KeptHead(meta["kind"], arrays, json.loads(meta["use"]))
    except (SafetensorError, OSError, ValueError, KeyError) as e:
        raise DataError(f"{path}: cannot be read as a head ({first_line(e)}). {AGAIN}") from None
    if not sound:
        raise DataError(f"{path}: its content does not agree with its checksum. {AGAIN}")
    return head, meta


def refuse_another(path: Path, meta: Mapping[str, str], encoder: Encoder) -> None:
    """Raises UsageError where `encoder` is not the one that the head was trained on."""
    for name, mine in encoder_facts(encoder).items():
        if meta.get(name) != mine:
            there, here = (str(value)[:12] if name == "weights" else value for value in (meta.get(name), mine))
            raise UsageError(
                f"{path}: was trained on {meta.get('model')}, whose {name} are {there}; those of "
                f"{encoder.card.name} are {here}. A head reads no other encoder: train one with bench run --save-heads"
            )
