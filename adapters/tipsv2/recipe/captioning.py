"""Synthetic captions for a folder of pictures or for tar shards, as one more column beside those that are there.

A folder gets a `captions.jsonl`, a shard a shard of the same name with the caption in each sample's `.json`. What was
finished before a kill is not made again.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from adapters.tipsv2.recipe.captioner import Captioner, filled
from adapters.tipsv2.recipe.shard_index import PICTURES
from adapters.tipsv2.recipe.shards import Shard, find_shards
from adapters.tipsv2.recipe.source_files import CAPTIONS, picture
from benchmark.data.hidden import is_hidden
from benchmark.errors import DataError, UsageError, unknown
from benchmark.system import sealed
from benchmark.system.files import write_atomic
from benchmark.system.texts import json_lines

PROMPTS = Path(__file__).with_name("prompts.toml")
FACTS = "captions.json"
Write = Callable[[Sequence[Image.Image], Sequence[str]], list[str]]


@dataclass(frozen=True)
class Asked:
    """What is asked for: captions of `kind` (the column's name) by `prompt`, `batch` pictures at a time."""

    kind: str
    prompt: str
    batch: int = 8


@dataclass
class Counts:
    """Captions written, pictures that cannot be read, the first of them."""

    written: int = 0
    bad: int = 0
    first: str = ""


def known_prompt(kind: str) -> tuple[str, int]:
    """(prompt, tokens at most) of a kind of the recipe. Raises UsageError for another one."""
    kinds = tomllib.loads(PROMPTS.read_text(encoding="utf-8"))
    if kind not in kinds:
        raise unknown("kind of caption", kind, kinds, f"{', '.join(kinds)}; or write --prompt")
    return kinds[kind]["prompt"], kinds[kind]["tokens"]


def caption(place: str, out: Path, asked: Asked, model: str, options: Mapping[str, Any]) -> Counts:
    """Captions for the folder or the shards `place`, written into the folder `out`; `options` are Captioner's.

    Raises UsageError where `out` holds captions that were asked for otherwise, DataError for data that cannot be read.
    """
    facts = {"schema": 1, "of": place, "kind": asked.kind, "prompt": asked.prompt, "model": model}
    facts |= {"tokens": options["tokens"]}
    if (out / FACTS).is_file() and (before := sealed.read_json(out / FACTS, since=1)) != facts:
        unlike = ", ".join(key for key in facts if before.get(key) != facts[key])
        raise UsageError(f"{out} holds captions that were asked for otherwise ({unlike}). Give another --out")
    rows = _folder_rows(Path(place)) if Path(place).is_dir() else None
    shards = [] if rows is not None else find_shards(place)
    names = [shard.name.rpartition("/")[2] for shard in shards]
    if len({*names}) < len(names):
        raise UsageError(f"{place}: shards of one name would be written over one another. Take one folder at a time")
    if any(Path(shard.name).resolve() == (out / name).resolve() for shard, name in zip(shards, names, strict=True)):
        raise UsageError(f"--out {out} is where the shards lie. Give another folder")
    sealed.write_json(out / FACTS, facts)
    write, counts = Captioner(model, **options), Counts()
    if rows is not None:
        _caption_folder(Path(place), rows, out, asked, write, counts)
    for shard, name in zip(shards, names, strict=True):
        if not (out / name).is_file():
            content = _captioned_shard(shard, asked, write, counts)
            write_atomic(out / name, lambda f, content=content: f.write(content))  # type: ignore[misc]
    return counts


def _folder_rows(root: Path) -> list[dict[str, Any]]:
    if (root / CAPTIONS).is_file():
        return [row for _, row in json_lines(root / CAPTIONS)]
    found = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.suffix.lower() in PICTURES)
    rows = [{"image": name, "alt": None} for name in found if not is_hidden(name)]
    if not rows:
        raise DataError(f"{root}: neither {CAPTIONS} nor a picture is there")
    return rows


def _caption_folder(
    root: Path, rows: list[dict[str, Any]], out: Path, asked: Asked, write: Write, counts: Counts
) -> None:
    part = out / f".{CAPTIONS}.part"
    whole = part.read_bytes().rpartition(b"\n")[0] if part.is_file() else b""
    done = [json.loads(line) for line in whole.split(b"\n") if line]
    with open(part, "wb") as f:
        f.write(whole + b"\n" if whole else b"")
        for start in range(len(done), len(rows), asked.batch):
            chosen = rows[start : start + asked.batch]
            images = [root / str(row.get("image")) for row in chosen]
            said = _captions(images, chosen, [str(path) for path in images], asked, write, counts)
            for row, path, text in zip(chosen, images, said, strict=True):
                line = {**row, "image": os.path.relpath(path, out), asked.kind: text}
                f.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
            f.flush()
        os.fsync(f.fileno())
    part.replace(out / CAPTIONS)


def _captions(
    images: Sequence[Any], rows: Sequence[Mapping[str, Any]], names: Sequence[str], asked: Asked, write: Write,
    counts: Counts,
) -> list[str | None]:  # fmt: skip
    """A caption for each; None for a picture that cannot be read, which is counted."""
    pictures: dict[int, Image.Image] = {}
    for i, image in enumerate(images):
        try:
            pictures[i] = picture(image, names[i])
        except DataError as error:
            counts.bad, counts.first = counts.bad + 1, counts.first or str(error)
    said: list[str | None] = [None] * len(images)
    if pictures:
        texts = write([*pictures.values()], [filled(asked.prompt, rows[i]) for i in pictures])
        for i, text in zip(pictures, texts, strict=True):
            said[i] = text
    counts.written += len(pictures)
    return said


def _captioned_shard(shard: Shard, asked: Asked, write: Write, counts: Counts) -> bytes:
    """The shard with the captions in it: members in their order, a sample's `.json` last."""
    members = dict(_members(shard))
    samples: dict[str, dict[str, str]] = {}
    for name in members:
        folder, slash, file = name.rpartition("/")
        stem, dot, ending = file.partition(".")
        samples.setdefault(folder + slash + stem, {})[(dot + ending).lower()] = name
    captioned = {k: v for k, v in samples.items() if any(e in PICTURES for e in v) and not is_hidden(k)}
    rows: dict[str, dict[str, Any]] = {}
    for stem, files in captioned.items():
        try:
            row = json.loads(members[files[".json"]]) if ".json" in files else {}
            rows[stem] = row if isinstance(row, dict) else {}
        except ValueError as error:
            raise DataError(f"{shard.name}, {stem}.json: cannot be read ({error})") from None
    stems = [*rows]
    for start in range(0, len(stems), asked.batch):
        chosen = stems[start : start + asked.batch]
        images = [members[next(n for e, n in samples[s].items() if e in PICTURES)] for s in chosen]
        texts = [
            {"txt": members[samples[s][".txt"]].decode("utf-8", "replace")} if ".txt" in samples[s] else {}
            for s in chosen
        ]
        known = [text | rows[s] for s, text in zip(chosen, texts, strict=True)]
        said = _captions(images, known, [f"{shard.name}, {s}" for s in chosen], asked, write, counts)
        for stem, text in zip(chosen, said, strict=True):
            rows[stem][asked.kind] = text
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        for stem, files in samples.items():
            for ending, name in files.items():
                if ending != ".json" or stem not in rows:
                    _add(archive, name, members[name])
            if stem in rows:
                _add(archive, files.get(".json", f"{stem}.json"), json.dumps(rows[stem]).encode())
    return held.getvalue()


def _members(shard: Shard) -> Iterator[tuple[str, bytes]]:
    import fsspec

    try:
        with fsspec.open(shard.name, "rb") as f, tarfile.open(fileobj=f, mode="r|") as archive:
            for member in archive:
                if member.isfile():
                    content = archive.extractfile(member)
                    assert content is not None  # a file has one
                    yield member.name, content.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{shard.name}: not a readable tar file ({error}). Fetch the shard again") from None


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))
