"""`trainval_merged.json` of PASCAL in Detail: PASCAL Context's published masks, as run lengths.

`images` tells each picture's name, size and `phase`; `annos_segmentation` has one category and one mask in COCO's run
lengths for each thing and stuff of a picture. A picture's labels are the category ids of its annotations painted in the
file's order, a later one over an earlier one, 0 where there is none: so the authors' Detail API makes them
(zhanghang1989/detail-api, `getMask`), and from those mmsegmentation's converter the masks that published numbers use.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from benchmark.errors import DataError
from benchmark.system.digest import fingerprint
from benchmark.system.files import write_atomic
from benchmark.system.paths import cache_dir
from tasks.datasets.archives import Archive
from tasks.datasets.blobs import Blobs
from tasks.datasets.digests import facts_of

JSON = "trainval_merged.json"
Record = tuple[str, dict[str, Any]]  # stem of the picture; {size: [H, W], segments: [[category, counts], …]}


def phase_masks(path: Path, phase: str) -> Archive:
    """The pictures of phase `val` or `train` as `<stem>.json`, one record each, in a tar that stays in the cache.

    The file is hundreds of megabytes, most of it parts and boundaries, so it is parsed once. Raises DataError.
    """
    of_phase = {} if phase == "val" else {"phase": phase}
    key = fingerprint({"path": path.resolve(), "facts": facts_of(path.stat()), **of_phase})
    kept = cache_dir() / "pascal_detail" / f"{key[:32]}.tar"
    if not kept.is_file():
        try:
            with open(path, encoding="utf-8") as file:
                records = sorted(_records(json.load(file), phase))
        except OSError as e:
            raise DataError(f"{path}: cannot be read ({e.strerror}). Check the path") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as e:
            what = f"{type(e).__name__}: {e}"
            raise DataError(f"{path}: is not PASCAL in Detail's {JSON} ({what}). Fetch it again") from None
        write_atomic(kept, lambda f: _pack(records, f))
    return Archive([kept])


def _records(content: dict[str, Any], phase: str) -> Iterator[Record]:
    # As in the API, one id is one annotation, and a later one with an id that was there takes its place in the order.
    segments: dict[int, list[list[Any]]] = {}
    for one in {a["id"]: a for a in content["annos_segmentation"]}.values():
        run = one["segmentation"]
        segments.setdefault(one["image_id"], []).append([int(one["category_id"]), run["counts"], run["size"]])
    for image in {i["image_id"]: i for i in content["images"]}.values():
        if image["phase"] != phase:
            continue
        size, found = [int(image["height"]), int(image["width"])], segments.get(image["image_id"], [])
        wrong = next((s for _, _, s in found if list(s) != size), None)
        if wrong is not None:
            raise ValueError(f"{image['file_name']} is {size[1]}x{size[0]}, a mask of it {wrong[1]}x{wrong[0]}")
        kept = [[category, counts] for category, counts, _ in found]
        yield Path(image["file_name"]).stem, {"size": size, "segments": kept}


def _pack(records: list[Record], file: IO[bytes]) -> None:
    with tarfile.open(fileobj=file, mode="w") as archive:
        for stem, record in records:
            data = json.dumps(record).encode()
            member = tarfile.TarInfo(f"{stem}.json")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def read_segments(masks: Blobs, index: int) -> np.ndarray:
    """[H, W] uint16 category ids of a record of `phase_masks`, 0 where nothing is annotated."""
    from pycocotools import mask as runs

    record = json.loads(masks.read(index))
    labels = np.zeros(record["size"], dtype=np.uint16)
    for category, counts in record["segments"]:
        one: Any = {"size": record["size"], "counts": counts}
        try:
            one = runs.frPyObjects(one, *record["size"]) if isinstance(counts, list) else one  # COCO's plain form
            inside = runs.decode(one)
            if int(inside.sum()) != int(runs.area(one)):  # runs that end early leave pixels of chance behind them
                raise ValueError("the runs end early")
        except (ValueError, TypeError) as e:
            text = f"the run lengths of category {category} are damaged ({e})"
            raise DataError(f"{masks.where(index)}: {text}. Fetch {JSON} again") from None
        labels[inside.astype(bool)] = category
    return labels
