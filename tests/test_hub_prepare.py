"""bench data prepare: what is fetched from the hub, how far, and what is left to do by hand."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import told
from test_hub_files import photos  # noqa: F401

from tasks.datasets import catalog, hub


class FakeHub:
    """Stands in for `snapshot_download`: `files` of a repository, of which it gives `most` before it fails."""

    def __init__(self, files, most=None, silent=False):
        self.files, self.most, self.silent, self.asked = files, most, silent, []

    def __call__(self, repo, *, repo_type, revision, local_dir, allow_patterns):
        from huggingface_hub.utils import filter_repo_objects

        self.asked.append((repo, repo_type, revision))
        wanted = list(filter_repo_objects(list(self.files), allow_patterns=allow_patterns))
        absent = [n for n in wanted if not (Path(local_dir) / n).exists()]
        for name in absent[: self.most]:
            (Path(local_dir) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(local_dir) / name).write_bytes(self.files[name])
        if self.most is not None and len(absent) > self.most and not self.silent:
            raise ConnectionError("the line broke")
        return str(local_dir)


@pytest.fixture
def repository(photos):
    images, labels = photos
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": images, "label": labels}), buffer)
    names = [f"data/train-{i:05d}-of-00003.parquet" for i in range(3)]
    names += [f"data/validation-{i:05d}-of-00002.parquet" for i in range(2)]
    return dict.fromkeys([*names, "data/test-00000-of-00001.parquet", "README.md"], buffer.getvalue())


@pytest.mark.parametrize("silent", [False, True])
def test_an_interrupted_fetch_from_the_hub_is_exit_one_and_goes_on(tmp_path, capsys, monkeypatch, repository, silent):
    words = ("data", "prepare", "imagenet1k", "--data", str(tmp_path / "d"))
    broken = FakeHub(repository, most=2, silent=silent)
    monkeypatch.setattr("huggingface_hub.snapshot_download", broken)
    code, out, err = told(capsys, *words)
    assert code == 1 and "train-00002-of-00003.parquet" in err and "goes on where it stopped" in err
    assert "by hand: Accept the terms" in out and "done" not in out
    code, out, err = told(capsys, *words)  # train is whole, validation is not
    assert code == 1 and "validation-00001-of-00002.parquet" in err
    whole = FakeHub(repository)
    monkeypatch.setattr("huggingface_hub.snapshot_download", whole)
    code, out, err = told(capsys, *words)
    assert code == 0 and "done: fetched ILSVRC/imagenet-1k@49e2ee26f381" in out
    assert whole.asked == [("ILSVRC/imagenet-1k", "dataset", "49e2ee26f3810fb5a7536bbf732a7b07389a47b5")]
    assert not (tmp_path / "d/imagenet1k/data/test-00000-of-00001.parquet").exists()
    code, out, err = told(capsys, *words, "--offline")
    assert code == 0 and "has all parquet files" in out and "by hand" not in out and len(whole.asked) == 1
    code, out, err = told(capsys, *words)
    assert code == 0 and len(whole.asked) == 1  # nothing is asked for what is whole


def test_a_parquet_cut_short_is_asked_for_again_and_any_parquet_is_not_all(tmp_path, capsys, monkeypatch, repository):
    words = ("data", "prepare", "imagenet1k", "--data", str(tmp_path / "d"))
    folder = tmp_path / "d/imagenet1k/data"
    folder.mkdir(parents=True)
    (folder / "validation-00000-of-00002.parquet").write_bytes(repository["data/train-00000-of-00003.parquet"])
    code, _, err = told(capsys, *words, "--offline")
    assert code == 1 and "no data/train-*" in err and "--revision 49e2ee26f3810fb5a7536bbf732a7b07389a47b5" in err
    for name, content in repository.items():
        (tmp_path / "d/imagenet1k" / name).write_bytes(content)
    assert told(capsys, *words, "--offline")[0] == 0
    (folder / "train-00001-of-00003.parquet").write_bytes(repository["README.md"][:100])
    code, _, err = told(capsys, *words, "--offline")
    assert code == 1 and "train-00001-of-00003.parquet is cut short" in err


def test_a_gated_repository_is_exit_one_after_the_steps(tmp_path, capsys, monkeypatch):
    from test_adapters_from_hub import hub_error

    def refuse(*_args, **_options):
        raise hub_error("GatedRepoError")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    code, out, err = told(capsys, "data", "prepare", "imagenet1k", "--data", str(tmp_path / "d"))
    assert code == 1 and "hf auth login" in out and "could not be fetched whole" in err


def test_imagenet_in_another_layout_is_not_fetched_again(tmp_path, capsys, monkeypatch, official, photos):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_a, **_k: pytest.fail("the hub was asked"))
    official("imagenet1k", counts={"train": 6, "test": 6})
    assert hub.lacking(tmp_path, ["data/train-*"])
    code, out, _ = told(capsys, "data", "prepare", "imagenet1k", "--data", str(tmp_path / "folder"))
    assert code == 0 and "is in" in out and "whole" in out


def test_prepare_offline_prints_what_is_to_do_by_hand_first(tmp_path, capsys):
    for name in ("nyuv2", "rp2k", "flickr30k", "imagenet1k", "voc2012"):
        code, out, err = told(capsys, "data", "prepare", name, "--offline", "--data", str(tmp_path))
        steps = catalog.catalog()[name]["steps"]
        assert code == 1 and "--offline" in err and all(step in out for step in steps), name
    code, out, err = told(capsys, "data", "prepare", "nyuv2", "--offline", "--data", str(tmp_path))
    assert "nyu_depth_v2_labeled.mat is missing" in err and "splits.mat is missing" in out  # each that is missing


def test_the_direct_addresses_stand_in_the_steps():
    wanted = {
        "rp2k": "https://blob-nips2020-rp2k-dataset.obs.cn-east-3.myhuaweicloud.com/rp2k_dataset.zip",
        "inat": "https://ml-inat-competition-datasets.s3.amazonaws.com/2018/train_val2018.tar.gz",
        "sop": "ftp://cs.stanford.edu/cs/cvgl/Stanford_Online_Products.zip",
        "inshop": "https://drive.google.com/file/d/0B7EVK8r0v71pS2YxRE1QTFZzekU/view",
        "met": "http://ptak.felk.cvut.cz/met/dataset/MET.tar.gz",
        "gldv2": "https://s3.amazonaws.com/google-landmark/index/images_000.tar",
    }
    for name, address in wanted.items():
        assert address in " ".join(catalog.catalog()[name]["steps"]), name


def test_voc_is_fetched_from_thor_with_the_old_host_behind_it():
    for name in ("voc2012", "voc21", "pc59", "pc60", "pc59-mat", "pc60-mat"):
        item = catalog.catalog()[name]["fetch"][0]
        assert item["url"].startswith("https://thor.robots.ox.ac.uk/pascal/VOC/voc20"), name
        assert item["also"] == [item["url"].replace("https://thor.", "http://host.")], name


# ------------------------------------------------------------------------------------------------ archives
