"""Text files as other programs save them: a byte-order mark, another encoding, Unicode's own separators, halves."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import miniatures
import pytest

from adapters.tipsv2.recipe.config import DataConfig
from adapters.tipsv2.recipe.shard_index import shard_entries
from adapters.tipsv2.recipe.shards import Shard
from adapters.tipsv2.recipe.source_files import open_folder
from benchmark.errors import DataError
from benchmark.registry import open_dataset
from benchmark.system.texts import json_lines, lines_of, split_lines
from tasks.datasets.user import open_task
from tasks.datasets.user_read import class_names

MARK = b"\xef\xbb\xbf"


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A TOML task whose classes and labels lie in files of their own, all of which begin with a byte-order mark."""
    lines = 'task = "classification"\nname = "fruit"\nclasses = "classes.txt"\nimages = "i"\n'
    lines += 'labels = "labels.csv"\nsplit = { test = 0.5 }\n'
    (tmp_path / "fruit.toml").write_bytes(MARK + lines.encode())
    (tmp_path / "classes.txt").write_bytes(MARK + "apple\r\npêche\r\n".encode())
    (tmp_path / "labels.csv").write_bytes(MARK + b"image,label\r\n" + b"".join(row(i) for i in range(8)))
    (tmp_path / "i").mkdir()
    for i in range(8):
        (tmp_path / f"i/{i}.jpg").write_bytes(b"")
    return tmp_path / "fruit.toml"


def row(number: int) -> bytes:
    return f"{number}.jpg,{('apple', 'pêche')[number % 2]}\r\n".encode()


def test_a_byte_order_mark_is_no_letter_of_a_class_name(task: Path) -> None:
    data = open_task(task).dataset.data("labels", "test")
    assert data.class_names == ("apple", "pêche") and set(data.labels.tolist()) <= {0, 1}
    assert class_names(open_task(task).dataset.file) == ("apple", "pêche")


def test_a_table_that_is_not_utf8_is_one_line_with_its_place(task: Path) -> None:
    (task.parent / "labels.csv").write_bytes(b"image,label\r\n0.jpg,apple\r\n1.jpg,p\xeache\r\n")
    with pytest.raises(DataError, match=r"labels\.csv:3: byte 0xea is not UTF-8\. Save the file as UTF-8"):
        open_task(task).dataset.data("labels", "test")


def test_a_table_that_is_no_csv_is_one_line(task: Path) -> None:
    (task.parent / "labels.csv").write_text("image,label\n0.jpg," + "x" * 200_000 + "\n")
    with pytest.raises(DataError, match=r"labels\.csv:2: is no CSV"):
        open_task(task).dataset.data("labels", "test")


def test_only_line_feeds_end_a_json_line(tmp_path: Path) -> None:
    words = {"image": "a.jpg", "alt": "one\u2028two\x85three"}
    (tmp_path / "captions.jsonl").write_text(json.dumps(words, ensure_ascii=False) + "\r\n\r\n{}\n", encoding="utf-8")
    assert list(json_lines(tmp_path / "captions.jsonl")) == [(1, words), (3, {})]
    source = open_folder(DataConfig(source="folder", path=str(tmp_path), samples=1))
    assert source.rows == [words] and source.lines == [1]


def test_half_a_character_is_named_before_a_tokenizer_meets_it(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"caption": "a \\ud83d\\ude00"}\n{"caption": "a \\ud83d"}\n')
    with pytest.raises(DataError, match=r"x\.jsonl:2: holds half a character \(\\ud83d\)"):
        list(json_lines(tmp_path / "x.jsonl"))


def test_a_compressed_shard_is_refused_as_its_offsets_are_not_those_of_the_file(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:gz") as out:
        out.add(__file__, "a.json")
    with pytest.raises(DataError, match=r"a\.tar: not a readable tar file"):
        shard_entries(Shard(str(tmp_path / "a.tar"), (tmp_path / "a.tar").stat().st_size, ""))


INSIDE = "a dog\u2028on\x85a\x0bmat\x0cby\x1ethe\u2029door"  # str.splitlines makes seven lines of it


def test_only_line_feeds_and_carriage_returns_end_a_line(tmp_path: Path) -> None:
    text = f"{INSIDE}\r\nsecond\rthird\n\n"
    assert list(split_lines(text)) == [INSIDE, "second", "third", ""]
    (tmp_path / "names.txt").write_bytes(text.encode())
    assert lines_of(tmp_path / "names.txt") == [INSIDE, "second", "third"]


def test_captions_of_shards_of_docci_and_of_own_folders_keep_what_is_inside_a_line(tmp_path: Path) -> None:
    rows = [("a.jpg", f"{INSIDE}\nsecond"), ("b.jpg", "one")]
    (tmp_path / "flickr30k/test").mkdir(parents=True)
    picture = miniatures.save_jpeg(tmp_path / "p.jpg", 0).read_bytes()
    with tarfile.open(tmp_path / "flickr30k/test/0.tar", "w") as out:
        for name, words in rows:
            for member, held in ((name, picture), (name.replace("jpg", "txt"), words.encode())):
                entry = tarfile.TarInfo(member)
                entry.size = len(held)
                out.addfile(entry, io.BytesIO(held))
    data = open_dataset("flickr30k", tmp_path).data("captions", "test")
    assert [list(c) for c in data.captions] == [[INSIDE, "second"], ["one"]]

    root = miniatures.docci(tmp_path)
    file = root / "docci_descriptions.jsonlines"
    rewritten = [json.loads(line) | {"description": INSIDE} for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rewritten), encoding="utf-8")
    data = open_dataset("docci", tmp_path).data("captions", "test")
    assert [list(c) for c in data.captions] == [[" ".join(INSIDE.split())]] * 3
