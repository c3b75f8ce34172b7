"""One bad file is one line: whatever a library makes of its bytes, the message names the file and the rest goes on."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from rows import write_row

from benchmark.contracts.progress import silent
from benchmark.data.unreadable import drop_unreadable
from benchmark.errors import BenchError, DataError
from benchmark.heads.dpt_weights import read_arrays
from benchmark.leaderboard import build
from benchmark.rows.published import read_published
from benchmark.rows.row import read_all
from benchmark.rows.schema import SCHEMA
from benchmark.rows.tables import write_tables
from benchmark.system.escaping import escape, plain_cell, printable
from tasks.datasets.arrays import numpy_file
from tasks.datasets.blobs import FileBlobs
from tasks.datasets.kinds import LabelSet, Pictures
from tasks.datasets.names import Names

HEADER = "model,model_id,task,dataset,metric,value,source,note\n"
TURNED = "safe\u202egnp.exe"


def a_zip(member: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
    return out.getvalue()


def npy(shape: tuple[int, ...]) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return out.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        a_zip("a.npy", npy((4,)) + bytes(16))[:60],
        a_zip("a.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': (((((((("),
        a_zip("a.npy", npy((10**6, 10**6))),
        npy((10**6, 10**6)),
        npy((4,)).replace(b"'<f4'", b"'|O8'")[:40],
        b"\x93NUMPY\x09\x00",
        b"",
    ],
    ids=range(7),  # an archive has the time in it, and a test's name must not
)
def test_a_damaged_numpy_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mask.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"mask\.npy: is no usable numpy array") as caught:
        numpy_file(FileBlobs(str(tmp_path), Names(["mask.npy"])), 0)
    assert "\n" not in str(caught.value)


def test_a_damaged_head(tmp_path: Path) -> None:
    whole = a_zip("decoder/dpt/project/bias.npy", npy((400,)) + np.arange(400, dtype="<f4").tobytes())
    for at in range(40, len(whole), 97):
        (tmp_path / "head.zip").write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        try:
            read_arrays(tmp_path / "head.zip")
        except BenchError as e:
            assert str(e).startswith(str(tmp_path / "head.zip")) and "\n" not in str(e)


class Breaking(Pictures):
    """Pictures of which the second makes the reader raise what no reader promises."""

    error: type[BaseException] = RuntimeError
    digest = "three pictures"  # type: ignore[assignment]

    def __len__(self) -> int:
        return 3

    def image_id(self, index: int) -> str:
        return f"{index}.jpg"

    def load(self, index: int) -> np.ndarray:
        if index == 1:
            raise self.error("a library's own words")
        return np.zeros((4, 4, 3), np.uint8)


class Panic(BaseException):
    """As Rust libraries raise: no Exception."""


@pytest.mark.parametrize("error", [RuntimeError, RecursionError, MemoryError, KeyError, AssertionError, Panic])
def test_max_bad_leaves_out_whatever_the_library_raises(error: type[BaseException]) -> None:
    pictures = Breaking(FileBlobs("", Names(["a"])))
    object.__setattr__(pictures, "error", error)
    data = LabelSet(pictures, np.arange(3), ("a", "b", "c"))
    kept, lines = drop_unreadable(data, 1, silent)
    assert len(kept.images) == 2 and len(lines) == 1 and lines[0].startswith("1.jpg: cannot be read")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a,a,depth,nyuv2,RMSE,nan,p,\n", ":2"),
        ("a,a,depth,nyuv2,RMSE,1e999,p,\n", ":2"),
        ("a,a,depth,nyuv2,RMSE,0.4,p,\ncafé,a,depth,nyuv2,RMSE,0.4,p,\n", ":3"),
        ("a,a,depth,nyuv2,RMSE\n", ":2"),
        (f"{'a' * 200_000},a,depth,nyuv2,RMSE,0.4,p,\n", ":"),
    ],
)
def test_a_bad_line_of_published_numbers(tmp_path: Path, text: str, line: str) -> None:
    (tmp_path / "published.csv").write_bytes((HEADER + text).encode("latin-1"))
    with pytest.raises(BenchError, match=rf"published\.csv{line}"):
        read_published(tmp_path)
    write_row(tmp_path, "a", "depth")
    built = build(tmp_path)  # the rest is shown
    assert built.rows == 1 and len(built.problems) == 1 and "published.csv" in built.problems[0]


CHANGES = {
    "timing.images_per_s": "fast", "peak_memory_mb": [1], "details": ["a"], "partial": 3, "task.n": "<b>4</b>",
    "model.params": 10**400, "created": 4, "protocol.fields": [], "n_bad": None, "seed": "0",
    "model.dtype": {"a": 1}, "timing.total_s": float("nan"),
}  # fmt: skip


@pytest.mark.parametrize("field", CHANGES)
def test_a_foreign_row_stops_no_table(tmp_path: Path, field: str) -> None:
    write_row(tmp_path, "good", "depth")
    file = write_row(tmp_path, "foreign", "depth") / "result.json"
    data = json.loads(file.read_text())
    *above, key = field.split(".")
    place = data[above[0]] if above else data
    place[key] = CHANGES[field]
    file.write_text(json.dumps(data))
    rows, problems = read_all(tmp_path)
    assert [r.model for r in rows] == ["good"] and len(problems) == 1 and f"{file}: " in problems[0]
    assert "foreign" not in write_tables(tmp_path)[0].read_text() and build(tmp_path).rows == 1


def test_a_value_that_the_samples_do_not_give_is_not_shown(tmp_path: Path) -> None:
    for schema in (1, SCHEMA):
        file = write_row(tmp_path, f"m{schema}", "depth", schema=schema) / "result.json"
        data = json.loads(file.read_text())
        data["metrics"]["RMSE"]["value"] *= 0.5
        file.write_text(json.dumps(data))
    rows, problems = read_all(tmp_path)
    assert not rows and len(problems) == 2 and all("is damaged" in line for line in problems)


def test_marks_that_turn_a_line_are_shown(tmp_path: Path) -> None:
    spelled = r"safe\u202egnp.exe"
    assert spelled in printable(TURNED) and plain_cell(TURNED) == spelled and escape(TURNED) == r"safe\\u202egnp.exe"
    write_row(tmp_path, TURNED, "depth", schema=SCHEMA)
    for path in (*write_tables(tmp_path), *build(tmp_path).paths, *tmp_path.rglob("result.json")):
        text = path.read_text(encoding="utf-8")
        assert "\u202e" not in text and "u202egnp" in text, path
    assert read_all(tmp_path)[0][0].model == TURNED
