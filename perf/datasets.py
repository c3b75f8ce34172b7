"""What a large set of files costs before the first picture is read: python perf/datasets.py [files]

Prints seconds for listing, checking, the first and the second digest, and pickling; and the digest of a retrieval
set as large as UnED. The second digest only asks the file system, so it is compared with bare os.stat calls.
"""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmark.contracts import DatasetInfo
from tasks.datasets.blobs import FileBlobs
from tasks.datasets.kinds import Pictures, RetrievalSet
from tasks.datasets.names import Names
from tasks.datasets.places import Folder, checked


def timed(label: str, work):  # type: ignore[no-untyped-def]
    """The result of `work()`, with its seconds printed."""
    start = time.perf_counter()
    result = work()
    print(f"{label:42} {time.perf_counter() - start:8.2f} s")
    return result


def main(count: int) -> None:
    """`count` files of 300 bytes in folders of 1,000."""
    info = DatasetInfo("perf", "", "", "", "", "", ("labels",))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BENCH_CACHE"] = str(Path(folder) / "cache")
        root = Path(folder) / "files"
        for i in range(count):
            if i % 1000 == 0:
                (root / f"n{i // 1000:08d}").mkdir(parents=True)
            (root / f"n{i // 1000:08d}" / f"picture_{i:08d}.jpg").write_bytes(i.to_bytes(4, "little") * 75)
        print(f"{count} files")
        names = timed("list", lambda: Folder(root).names("", (".jpg",)))
        blobs = timed("check that each is there", lambda: checked(info, Folder(root), names))
        timed("first digest (reads all bytes)", lambda: blobs.digest)
        again = FileBlobs(str(root), Names(names))
        start = time.perf_counter()
        for name in names:
            os.stat(root / name)
        bare = time.perf_counter() - start
        start = time.perf_counter()
        digest = again.digest
        seconds = time.perf_counter() - start
        same = digest == blobs.digest
        print(f"{'second digest':42} {seconds:8.2f} s, {seconds / bare:.1f} × bare os.stat; equal: {same}")
        data = timed("pickle and back", lambda: pickle.dumps(pickle.loads(pickle.dumps(again))))
        print(f"{'pickled size':42} {len(data) / 1e6:8.2f} MB, {len(data) / count:.0f} bytes a file")
        pictures = Pictures(again)
        labels = np.arange(1_400_000) % 349_000
        domains = ("gldv2",) * len(labels)
        merged = RetrievalSet(pictures, pictures, labels[:242_000], labels, domains[:242_000], domains)
        timed("digest of labels as large as UnED", lambda: merged.digest)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
