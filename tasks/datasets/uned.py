"""UnED: eight retrieval domains by its `info_files/<domain>/{test,index}.json`, alone or in one merged index.

Each file is a list of {"path", "class_id"}; paths start at `images/`. A domain without `index.json` searches its own
test pictures, the query left out. A hit must share class and domain. A query may name several classes: a hit of
any of them counts. RP2K's Chinese file names may have been unpacked as `#Uxxxx`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.contracts import Dataset, DatasetInfo
from benchmark.errors import DataError, reading, unknown
from tasks.datasets.blobs import concatenate
from tasks.datasets.catalog import expected
from tasks.datasets.kinds import Pictures, RetrievalSet
from tasks.datasets.places import Store, checked, find, known_options, note_size, split_error

DOMAINS = {  # our name -> folder of the info files
    "food2k": "food2k",
    "cars196": "cars",
    "sop": "sop",
    "inshop": "inshop",
    "inat": "inat",
    "met": "met",
    "gldv2": "gldv2",
    "rp2k": "rp2k",
}
MARKER = "info_files"


@dataclass(frozen=True)
class UnEd(Dataset):
    """Some of the eight domains as one retrieval set."""

    info: DatasetInfo
    root: Path | None
    domains: tuple[str, ...]

    def data(self, kind: str, split: str) -> RetrievalSet:
        if kind != "retrieval" or split not in self.info.splits:
            raise split_error(self.info, kind, split)
        store = find(self.info, self.root, MARKER, ("data", "uned"), also=("uned", "UnED"))
        found = merge([one_domain(self.info, store, name) for name in self.domains])
        if self.info.name != "uned" or len(self.domains) == len(DOMAINS):
            note_size(self.info, split, len(found.queries), expected(self.info.name, "test"))
            note_size(self.info, "index", len(found.index), expected(self.info.name, "test_index"))
        return found


def one_domain(info: DatasetInfo, store: Store, name: str) -> RetrievalSet:
    """Queries and index of one domain."""
    folder = f"{MARKER}/{DOMAINS[name]}"
    queries = _entries(store, f"{folder}/test.json")
    own_index = store.has(f"{folder}/index.json")
    index = _entries(store, f"{folder}/index.json") if own_index else queries
    query_set = Pictures(checked(info, store, _on_disk(store, [p for p, _ in queries])))
    index_set = Pictures(checked(info, store, _on_disk(store, [p for p, _ in index]))) if own_index else query_set
    places = None
    if not own_index:
        places = np.arange(len(queries))
    elif overlap := {p for p, _ in queries} & {p for p, _ in index}:
        at = {p: i for i, (p, _) in enumerate(index) if p in overlap}
        places = np.array([at.get(p, -1) for p, _ in queries], dtype=np.int64)
    return RetrievalSet(
        query_set,
        index_set,
        np.array([c[0] for _, c in queries], dtype=np.int64),
        np.array([c[0] for _, c in index], dtype=np.int64),
        (name,) * len(queries),
        (name,) * len(index),
        places,
        {q: tuple(c[1:]) for q, (_, c) in enumerate(queries) if len(c) > 1},
    )


def _entries(store: Store, name: str) -> list[tuple[str, list[int]]]:
    """(path, classes) per picture. Raises DataError naming the file and the entry."""
    where = store.where(name)
    with reading(where, "is not JSON", "Fetch info_files.zip again"):
        rows = list(json.loads(store.read(name)))
    found = []
    for number, row in enumerate(rows):
        try:
            classes = row["class_id"] if isinstance(row["class_id"], list) else [row["class_id"]]
            found.append((str(row["path"]), [int(c) for c in classes]))
            found[-1][1][0]
        except (KeyError, TypeError, ValueError, IndexError):
            raise DataError(f"{where}: entry {number} has no path or class_id: {str(row)[:80]}") from None
    return found


def _on_disk(store: Store, paths: Sequence[str]) -> list[str]:
    """Paths below the root; RP2K names that were unpacked with escapes are spelt so."""
    names = [f"images/{p}" for p in paths]
    return [n if n.isascii() or not store.missing([n]) else escaped(n) for n in names]


def escaped(name: str) -> str:
    """Non-ASCII characters as unzip writes them without a UTF-8 locale: `#U` and four (six past the BMP) hex digits."""
    return "".join(c if c.isascii() else f"#U{ord(c):04x}" if ord(c) < 65536 else f"#L{ord(c):06x}" for c in name)


def merge(parts: Sequence[RetrievalSet]) -> RetrievalSet:
    """Domains side by side: one index for all; each query still knows its own place."""
    if len(parts) == 1:
        return parts[0]
    places, offset = [], 0
    more, before = dict[int, tuple[int, ...]](), 0
    for part in parts:
        own = np.full(len(part.queries), -1, dtype=np.int64) if part.self_index is None else part.self_index
        places.append(np.where(own >= 0, own + offset, -1))
        offset += len(part.index)
        more |= {before + q: labels for q, labels in part.more_labels.items()}
        before += len(part.queries)
    joined: Any = {key: np.concatenate([getattr(p, key) for p in parts]) for key in ("query_labels", "index_labels")}
    return RetrievalSet(
        Pictures(concatenate([p.queries.blobs for p in parts])),
        Pictures(concatenate([p.index.blobs for p in parts])),
        joined["query_labels"],
        joined["index_labels"],
        tuple(d for p in parts for d in p.query_domains),
        tuple(d for p in parts for d in p.index_domains),
        np.concatenate(places),
        more,
    )


def open_dataset(info: DatasetInfo, root: Path | None, options: Mapping[str, str]) -> UnEd:
    """`uned` (option domains = food2k,sop,…) or one of its members, under `root`."""
    if info.name in DOMAINS:
        known_options(info, options)
        return UnEd(info, root, (info.name,))
    known_options(info, options, "domains")
    domains = tuple(d.strip() for d in options.get("domains", ",".join(DOMAINS)).split(","))
    for domain in domains:
        if domain not in DOMAINS:
            raise unknown("UnED domain", domain, DOMAINS, ", ".join(DOMAINS))
    return UnEd(info, root, domains)
