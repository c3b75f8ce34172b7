"""Which pictures are the same: equal in size and in every pixel, whatever file, name or container they came in.

An encoder is given pixels, so that is what decides whether it could tell two pictures apart. A lossy copy of a picture
is another picture. Digests are kept by the set's own digest: a set is decoded once, whoever asks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import PIL

from benchmark.contracts import Progress
from benchmark.errors import BenchError, DataError
from benchmark.system.digest import fingerprint
from benchmark.system.paths import cache_dir
from benchmark.system.sealed import Damaged, read_arrays, remake, write_arrays

BYTES = 16  # of each sha256: more pictures than there are would have to be tried for two to agree by chance


def picture_digests(images: Any, progress: Callable[[str, int], Progress] | None = None) -> list[bytes]:
    """[N] digests of size and pixels of an ImageSet; one that cannot be read is equal to none: its reader names it."""
    key = fingerprint({"pictures": images.digest, "decoder": PIL.__version__})
    kept = cache_dir() / "digests" / f"pictures-{key[:32]}.npz"
    try:
        known = read_arrays(kept)["digests"]
        if known.shape == (len(images), BYTES):
            return [bytes(row) for row in known]
    except FileNotFoundError:
        pass
    except Damaged as e:
        remake(kept, e, "the pictures are compared again")
    bar = progress("comparing pictures", len(images)) if progress else None
    unread: list[int] = []

    def digest(index: int) -> bytes:
        try:
            pixels = np.ascontiguousarray(images.picture(index))
            content = repr(pixels.shape).encode() + pixels.tobytes()
        except DataError:
            unread.append(index)
            content = f"{images.digest} {index}".encode()
        if bar:
            bar.advance()
        return hashlib.sha256(content).digest()[:BYTES]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(digest, range(len(images))))
    if unread:  # a network disk that did not answer gives them next time
        return found
    try:
        write_arrays(kept, digests=np.frombuffer(b"".join(found), np.uint8).reshape(-1, BYTES))
    except (BenchError, OSError):
        return found  # what cannot be kept is made again next time
    return found


def first_equal(digests: Sequence[bytes]) -> np.ndarray:
    """[N] int64: the place of the first picture that is equal to each; its own where none before it is."""
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(digest, place) for place, digest in enumerate(digests)], dtype=np.int64)


def counted(first: np.ndarray) -> dict[str, int]:
    """How many pictures have an equal one in their set, and how many different ones those are, for a row's details."""
    sizes = np.bincount(first, minlength=len(first))
    return {"pictures": int(sizes[sizes > 1].sum()), "different": int((sizes > 1).sum())}
