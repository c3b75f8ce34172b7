"""`bench data verify` and `prepare` on miniatures and on a small local server."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import http.server
import io
import json
import tarfile
import threading
import zipfile

import miniatures as mini
import pytest
from command import told

from benchmark.errors import DataError
from benchmark.registry import datasets
from tasks.datasets import catalog, fetch, known, verify


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


def test_verify_says_ok_with_sizes_labels_and_digest(tmp_path, capsys, official):
    mini.ade20k(tmp_path)
    official("ade20k", counts={"train": 4, "test": 3})
    code, out, _ = told(capsys, "data", "verify", "ade20k", "--data", str(tmp_path), "--workers", "1")
    assert code == 0 and "segmentation train: ok, 4 pictures, as official" in out
    assert "32x24 (1)" in out and "read    4 of 4, 0 unreadable" in out and "digest" in out and "%" in out


def test_verify_counts_differ_and_unreadable_files_are_listed(tmp_path, capsys):
    root = mini.ade20k(tmp_path)
    damaged = root / "images/training/ADE_train_00000002.jpg"
    damaged.write_bytes(damaged.read_bytes()[:100])
    code, out, _ = told(capsys, "data", "verify", "ade20k", "--data", str(tmp_path), "--workers", "1", "--json")
    train = json.loads(out.splitlines()[0])
    assert code == 1 and train["found"] == 4 and train["expected"] == 20210 and not train["complete"]
    assert len(train["unreadable"]) == 1 and "ADE_train_00000002.jpg" in train["unreadable"][0]


def test_verify_of_an_absent_set_names_path_counts_and_command(tmp_path, capsys):
    code, out, _ = told(capsys, "data", "verify", "nyuv2", "--data", str(tmp_path))
    assert code == 1 and "depth train: MISSING" in out and "expected 24231 pictures" in out
    assert "nyudepthv2_train_files_with_gt.txt" in out and "bench data prepare nyuv2" in out


@pytest.mark.parametrize(
    "name", ["voc2012", "pc60", "nyuv2", "navi", "imagenet1k", "coco", "docci", "uned", "flickr30k", "spair"]
)
def test_verify_reads_every_family(tmp_path, capsys, name):
    makers = {
        "pc60": (mini.pascal_context,),
        "nyuv2": (mini.nyu_bts, mini.nyu_labelled),
        "imagenet1k": (mini.imagenet,),
    }
    for maker in makers.get(name) or (getattr(mini, name),):
        maker(tmp_path)
    _, out, err = told(capsys, "data", "verify", name, "--data", str(tmp_path), "--workers", "1", "--json")
    reports = [r for r in map(json.loads, out.splitlines()) if r["kind"] != "archive"]  # the miniatures' differ
    assert reports and not any(r["missing"] or r["unreadable"] for r in reports), (out, err)
    assert all(r["read"] == r["found"] > 0 and len(r["digest"]) == 64 for r in reports)


@pytest.fixture
def on_record(monkeypatch):
    """Lets `name` pass as an archive of which `record` is known."""

    def put(name, record):
        for module in (known, fetch, verify):
            monkeypatch.setattr(module, "known", lambda: {name: record})

    return put


def test_every_record_of_an_archive_is_one_digest_with_its_source():
    lengths = {"md5": 32, "sha1": 40, "sha256": 64}
    for name, record in known.known().items():
        assert len(bytes.fromhex(record.digest)) * 2 == lengths[record.kind] and record.source, name
    fetched = {item["url"].rsplit("/", 1)[1] for row in datasets().values() for item in row.get("fetch", ())}
    by_hand = {"benchmark.tgz", "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"}
    assert known.known().keys() <= fetched | by_hand


def test_verify_holds_archives_against_the_record(tmp_path, capsys, official, on_record):
    mini.ade20k(tmp_path)
    official("ade20k", counts={"train": 4, "test": 3})
    archive = tmp_path / "ade20k" / "A.zip"
    archive.write_bytes(b"as shipped")
    record = known.Known("sha1", hashlib.sha1(b"as shipped").hexdigest(), 10, "its owner")
    on_record("A.zip", record)
    words = ("data", "verify", "ade20k", "--data", str(tmp_path), "--workers", "1")
    code, out, _ = told(capsys, *words)
    assert code == 0 and "archive A.zip: ok, sha1 as on record (its owner)\n" in out
    archive.write_bytes(b"as Shipped")
    code, out, _ = told(capsys, *words)
    assert code == 1 and f"archive A.zip: NOT AS IT SHOULD BE, sha1 {hashlib.sha1(b'as Shipped').hexdigest()}" in out
    archive.write_bytes(b"cut")
    code, out, _ = told(capsys, *words)
    assert code == 1 and "NOT AS IT SHOULD BE, 3 bytes, the official file has 10 (its owner)" in out


def test_a_large_archive_is_read_only_when_everything_is(tmp_path, capsys, official, on_record, monkeypatch):
    mini.ade20k(tmp_path)
    official("ade20k", counts={"train": 4, "test": 3})
    (tmp_path / "ade20k" / "A.zip").write_bytes(b"changed")
    on_record("A.zip", known.Known("md5", "0" * 32, None, "its owner"))
    monkeypatch.setattr(verify, "LARGE", 5)
    words = ("data", "verify", "ade20k", "--data", str(tmp_path), "--workers", "1")
    code, out, _ = told(capsys, *words)
    assert code == 0 and "not read: --all does" in out
    assert told(capsys, *words, "--all")[0] == 1


def test_verify_takes_a_users_toml(tmp_path, capsys):
    mini.ade20k(tmp_path)
    base = "ade20k/ADEChallengeData2016"
    (tmp_path / "t.toml").write_text(
        'task = "zero_shot_segmentation"\nname = "x"\nclasses = "names.txt"\nreduce_zero_label = true\n'
        f'images = "{base}/images/validation"\nmasks = "{base}/annotations/validation"\n'
    )
    (tmp_path / "names.txt").write_text("".join(f"class {i}\n" for i in range(150)))
    code, out, _ = told(capsys, "data", "verify", str(tmp_path / "t.toml"), "--workers", "1")
    assert code == 0 and "segmentation test: ok, 3 pictures" in out


def test_scenes_are_whole_though_retrieval_has_no_training_split(capsys):
    sizes = dict.fromkeys(("n_train", "n_test", "n_labels_train", "n_labels_test", "n_retrieval"), 24)
    options = [w for key, n in {**sizes, "size": 16}.items() for w in ("--option", f"{key}={n}")]
    code, out, _ = told(capsys, "data", "verify", "scenes", "--workers", "1", *options)
    assert code == 0 and "MISSING" not in out and "retrieval test index: ok, 24 pictures" in out


def test_every_dataset_says_its_licence_layout_and_how_to_get_it():
    rows = datasets()
    assert len(rows) == 26 and sum(bool(r.get("variant_of")) for r in rows.values()) == 2
    assert sum(r.get("part_of") == "uned" for r in rows.values()) == 8
    for name, row in rows.items():
        assert row["licence"] and row["citation"] and row["layout"] and row["kinds"], name
        assert row.get("fetch") or row.get("hub") or row.get("steps") or name == "scenes", name
        assert set(row["counts"] if name != "scenes" else {"test": 0}) & {"test", "test_depth"}, name
    members = [r["counts"] for r in rows.values() if r.get("part_of")]
    assert sum(c["test"] for c in members) == rows["uned"]["counts"]["test"] == 241986
    assert sum(c["test_index"] for c in members) == rows["uned"]["counts"]["test_index"] == 1397126


# -------------------------------------------------------------------------------------------- prepare


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `files` with ranges; `break_after` bytes it hangs up once."""

    files: dict[str, bytes] = {}
    break_after = 0
    tag = ""
    goog = ""
    asked: list[str] = []

    def do_GET(self):
        body, start = self.files[self.path], 0
        wanted = self.headers.get("Range")
        if wanted and self.headers.get("If-Range", self.tag) == self.tag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            type(self).asked.append(wanted)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        if self.tag:
            self.send_header("ETag", self.tag)
        if self.goog:
            self.send_header("x-goog-hash", self.goog)
        self.end_headers()
        if type(self).break_after and not start:
            self.wfile.write(body[: type(self).break_after])
            type(self).break_after = 0
            self.wfile.flush()
            self.connection.close()
            return
        self.wfile.write(body[start:])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    Handler.files, Handler.asked, Handler.break_after, Handler.tag, Handler.goog = {}, [], 0, "", ""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_broken_download_goes_on_where_it_stopped(tmp_path, server):
    Handler.files["/a.zip"] = bytes(range(256)) * 40
    Handler.break_after = 3000
    with pytest.raises(DataError, match="The same command goes on where it stopped"):
        fetch.download(f"{server}/a.zip", tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists() and (tmp_path / "a.zip.part").stat().st_size == 3000
    fetch.download(f"{server}/a.zip", tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == Handler.files["/a.zip"] and Handler.asked == ["bytes=3000-"]


def test_a_file_that_changed_meanwhile_is_no_mixture_of_both(tmp_path, server):
    for content, tag in ((bytes(range(256)) * 40, '"one"'), (bytes(range(255, -1, -1)) * 40, '"two"')):
        Handler.files["/a.zip"], Handler.tag, Handler.break_after = content, tag, 3000 if tag == '"one"' else 0
        with contextlib.suppress(DataError):
            fetch.download(f"{server}/a.zip", tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == Handler.files["/a.zip"]
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_a_download_goes_on_where_the_file_is_the_same(tmp_path, server):
    Handler.files["/a.zip"], Handler.tag, Handler.break_after = bytes(range(256)) * 40, '"one"', 3000
    for _ in range(2):
        with contextlib.suppress(DataError):
            fetch.download(f"{server}/a.zip", tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == Handler.files["/a.zip"] and Handler.asked == ["bytes=3000-"]


def test_a_download_that_is_not_the_file_on_record_is_not_kept(tmp_path, server, on_record):
    Handler.files["/A.zip"] = b"another file"
    on_record("A.zip", known.Known("md5", hashlib.md5(b"the official file").hexdigest(), None, "its owner"))
    with pytest.raises(DataError, match=r"A\.zip: what came has md5 .* Run the same command again"):
        fetch.download(f"{server}/A.zip", tmp_path / "A.zip")
    assert not list(tmp_path.iterdir())
    Handler.files["/A.zip"] = b"the official file"
    fetch.download(f"{server}/A.zip", tmp_path / "A.zip")
    assert (tmp_path / "A.zip").read_bytes() == b"the official file"


def test_a_download_is_held_against_the_md5_its_server_sends(tmp_path, server):
    def goog(body):
        return f"crc32c=AAAAAA==,md5={base64.b64encode(hashlib.md5(body).digest()).decode()}"

    Handler.files["/x.tar"], Handler.goog = bytes(5000), goog(b"what was uploaded")
    with pytest.raises(DataError, match="as its server says"):
        fetch.download(f"{server}/x.tar", tmp_path / "x.tar")
    Handler.goog, Handler.break_after = goog(bytes(5000)), 3000
    for _ in range(2):
        with contextlib.suppress(DataError):
            fetch.download(f"{server}/x.tar", tmp_path / "x.tar")
    assert (tmp_path / "x.tar").read_bytes() == bytes(5000) and Handler.asked == ["bytes=3000-"]


def test_prepare_fetches_gunzips_unpacks_and_prints_the_steps_left(tmp_path, capsys, server, monkeypatch):
    tar, packed = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("empty"))
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("info/test.json", "[]")
    Handler.files = {"/x.tar.gz": gzip.compress(tar.getvalue()), "/y.zip": packed.getvalue()}
    items = [
        {"url": f"{server}/x.tar.gz", "to": "docci/x.tar", "gunzip": True},
        {"url": f"{server}/y.zip", "to": "docci/y.zip", "unpack": True},
    ]
    rows = {"docci": {**catalog.catalog()["docci"], "fetch": items, "steps": ["ask for the rest"]}}
    monkeypatch.setattr(fetch, "catalog", lambda: rows)
    code, out, _ = told(capsys, "data", "prepare", "docci", "--data", str(tmp_path))
    assert code == 0 and "by hand: ask for the rest" in out and "licence: CC-BY-4.0" in out
    assert (tmp_path / "docci/x.tar").read_bytes() == tar.getvalue()
    assert (tmp_path / "docci/info/test.json").read_text() == "[]"
    Handler.files = {}
    code, out, _ = told(capsys, "data", "prepare", "docci", "--data", str(tmp_path), "--offline")
    assert code == 0 and out.count("is there") == 2


def test_prepare_offline_opens_no_connection_and_says_what_to_fetch(tmp_path, capsys, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("socket.socket.connect", refuse)
    code, _, err = told(capsys, "data", "prepare", "ade20k", "--data", str(tmp_path), "--offline")
    assert code == 1 and "ADEChallengeData2016.zip is missing" in err and "data.csail.mit.edu" in err
    code, _, err = told(capsys, "data", "prepare", "ade20", "--data", str(tmp_path))
    assert code == 2 and "Did you mean 'ade20k'" in err


def test_archive_member_that_leaves_the_folder_is_refused(tmp_path):
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("../outside"))
    with pytest.raises(DataError, match="bad.tar: cannot be unpacked"):
        fetch.unpack(tmp_path / "bad.tar", tmp_path / "in")


def test_a_second_address_is_asked_where_the_first_fails_or_has_another_file(tmp_path, server, on_record):
    body = bytes(range(256)) * 40
    on_record("A.tar", known.Known("md5", hashlib.md5(body).hexdigest(), None, "its owner"))
    Handler.files = {"/gone/x": b"", "/changed/A.tar": b"<html>moved</html>", "/good/A.tar": body}
    nobody = "http://127.0.0.1:9/A.tar"  # refuses the connection
    urls = [nobody, f"{server}/changed/A.tar", f"{server}/good/A.tar"]
    assert fetch.download(urls, tmp_path / "A.tar") == urls[2] and (tmp_path / "A.tar").read_bytes() == body
    assert [p.name for p in tmp_path.iterdir()] == ["A.tar"]
    with pytest.raises(DataError) as failed:
        fetch.download(urls[:2], tmp_path / "B.tar")
    line = str(failed.value)
    assert nobody in line and "refused" in line and urls[1] in line and "md5" in line and "\n" not in line


def test_a_part_of_one_address_goes_on_at_another_only_where_a_digest_is_on_record(tmp_path, server, on_record):
    body = bytes(range(256)) * 40
    Handler.files = {"/one/A.tar": body, "/two/A.tar": body, "/one/B.tar": body, "/two/B.tar": body[::-1]}
    on_record("A.tar", known.Known("md5", hashlib.md5(body).hexdigest(), None, "its owner"))
    for name, asked, whole in (("A.tar", ["bytes=3000-"], body), ("B.tar", [], body[::-1])):
        Handler.asked, Handler.break_after = [], 3000
        assert fetch.download([f"{server}/one/{name}", f"{server}/two/{name}"], tmp_path / name).endswith(f"two/{name}")
        assert (tmp_path / name).read_bytes() == whole and Handler.asked == asked


def test_a_web_page_is_no_archive(tmp_path, server, monkeypatch):
    Handler.files = {"/x.zip": b"<html>please log in</html>", "/y/x.zip": b"PK"}
    plain = Handler.send_header
    page = ("Content-Type", "text/html; charset=utf-8")

    def with_type(self, key, value):
        plain(self, key, value)
        if key == "Content-Length" and self.path == "/x.zip":
            plain(self, *page)

    monkeypatch.setattr(Handler, "send_header", with_type)
    with pytest.raises(DataError, match="x.zip: cannot be fetched .it sends a web page"):
        fetch.download(f"{server}/x.zip", tmp_path / "x.zip")
    assert fetch.download([f"{server}/x.zip", f"{server}/y/x.zip"], tmp_path / "x.zip").endswith("y/x.zip")


def test_prepare_unpacks_a_gzip_that_was_fetched_by_hand(tmp_path, capsys):
    (tmp_path / "docci").mkdir()
    (tmp_path / "docci/docci_images.tar.gz").write_bytes(gzip.compress(b"a tar"))
    (tmp_path / "docci/docci_descriptions.jsonlines").write_text("{}\n")
    code, out, _ = told(capsys, "data", "prepare", "docci", "--data", str(tmp_path), "--offline")
    assert (
        code == 0 and "docci_images.tar.gz to" in out and (tmp_path / "docci/docci_images.tar").read_bytes() == b"a tar"
    )
    (tmp_path / "docci/docci_images.tar").unlink()
    (tmp_path / "docci/docci_images.tar.gz").write_bytes(gzip.compress(b"a tar" * 100)[:-9])
    code, out, err = told(capsys, "data", "prepare", "docci", "--data", str(tmp_path), "--offline")
    assert code == 1 and "is no whole gzip file" in err and not (tmp_path / "docci/docci_images.tar").exists()
