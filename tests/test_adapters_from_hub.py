"""Checkpoints from the hub: what is fetched, what is refused, what is said without a network."""

from __future__ import annotations

import json
import re
import shutil
from types import SimpleNamespace

import pytest
import torch
from test_adapters_weights import folder, refusal, saved  # noqa: F401
from transformers import Tipsv2Model

from adapters import clip, hub, weights_files
from adapters.tipsv2.variants import Architecture
from benchmark.contracts import ModelSpec
from benchmark.errors import UsageError, WeightsError
from benchmark.registry import check_local, models


@pytest.mark.parametrize("name", ["clip-l14", "siglip2-so400m-384", "dinov2-g", "dinov3-b"])
def test_offline_without_a_cache_says_which_files_and_where_to_put_them(name, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    row = models()[name]
    message = refusal(lambda: hub.build(ModelSpec(f"hf:{row['hub']}", target=row["hub"], offline=True)))
    assert f"{row['hub']}@{row.get('revision', 'main')} is not in the hub cache and --offline is set" in message
    assert f"https://huggingface.co/{row['hub']} into one folder and pass --weights FOLDER" in message
    assert "HF_HOME" in message


def hub_error(name: str) -> Exception:
    from huggingface_hub import errors

    kind = getattr(errors, name)
    error: Exception = kind.__new__(kind)  # its own initialiser wants a response of whichever HTTP client is in use
    return error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            "GatedRepoError",
            "facebook/dinov3-vitb16-pretrain-lvd1689m is gated. Accept its licence at https://huggingface.co/",
        ),
        ("RepositoryNotFoundError", "no repository facebook/dinov3-vitb16-pretrain-lvd1689m on the hub"),
        ("RevisionNotFoundError", "facebook/dinov3-vitb16-pretrain-lvd1689m has no revision 5931719e"),
    ],
)
def test_what_the_hub_answers_is_said_in_one_line(error, line, monkeypatch, tmp_path):
    def refuse(*_args, **_options):
        raise hub_error(error)

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refuse)
    repo = "facebook/dinov3-vitb16-pretrain-lvd1689m"
    message = refusal(lambda: hub.build(ModelSpec(f"hf:{repo}", target=repo)))
    assert line in message
    if error == "GatedRepoError":
        assert "Get config.json, model.safetensors" in message and "pass --weights FOLDER" in message


def test_a_repository_s_code_is_fetched_to_be_read(monkeypatch, tmp_path):
    """The line that asks to read the code before --trust-remote-code names a folder that has it."""
    from huggingface_hub.utils import filter_repo_objects

    files = ["config.json", "hf_model.py", "parts/blocks.py", "model.safetensors", "pytorch_model.bin", "photo.png"]
    fetched: list[str] = []

    def snapshot(_repo, *, allow_patterns, **_options):
        fetched.extend(filter_repo_objects(files, allow_patterns=allow_patterns))
        return str(tmp_path)

    siblings = [SimpleNamespace(rfilename=name) for name in files]
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_a, **_k: SimpleNamespace(siblings=siblings))
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert weights_files.download("a/b", "main", ModelSpec("hf:a/b")) == tmp_path
    assert fetched == files[:4]


def test_no_network_is_told_from_a_missing_model(monkeypatch, tmp_path):
    def unreachable(*_args, **_options):
        raise ConnectionError("name resolution failed")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    message = refusal(lambda: hub.build(ModelSpec("hf:a/b", target="a/b")))
    assert "the hub cannot be reached (ConnectionError: name resolution failed)" in message


def test_a_name_that_is_neither_a_folder_nor_a_repository():
    assert "is neither a folder here nor OWNER/NAME on the hub" in refusal(
        lambda: hub.build(ModelSpec("hf:./no/such/folder", target="./no/such/folder"))
    )


def test_a_folder_that_is_not_there_is_refused_before_anything_is_imported(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    for gone in ("./gone", str(tmp_path / "gone"), "~/gone", "models/mine/final"):
        with pytest.raises(UsageError, match=f"no folder {gone}. Give its path"):
            check_local(f"hf:{gone}")
    for name in ("hf:./there", "hf:owner/name", "hf:name", "timm:./gone", "clip-b16"):
        check_local(name)


def test_jax_is_refused_where_there_is_none(saved):
    spec = ModelSpec("clip-b16", weights=str(saved / "clip"), backend="jax")
    assert "clip-b16 has no jax backend. Use --backend torch" in refusal(lambda: clip.build(spec), UsageError)


# ------------------------------------------------------------------------------------------ hf: and TIPS


def test_a_tips_folder_loads_by_hf(tmp_path):
    import tips_layouts as tips

    row = tips.arch_row("S")
    Tipsv2Model(Architecture.from_row(row).to_config(8)).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(tips.tokenizer_bytes())
    encoder = hub.build(ModelSpec(f"hf:{tmp_path}", target=str(tmp_path), device="cpu", dtype="float32"))
    assert encoder.card.num_cls == 2
    assert encoder.card.weights.source == str(tmp_path)
    assert encoder.encode_image(torch.rand(1, 3, 56, 56)).patches.shape == (1, 4, 4, 48)


REPO = ["config.json", "model.safetensors", "tokenizer.json", "mlx_model.safetensors", "mlx/weights.safetensors"]
REPO += ["flax_model.msgpack", "flax_model.safetensors", "sub/flax_model-00001-of-00002.safetensors", "a.msgpack"]


def test_copies_for_mlx_and_flax_are_left_alone(monkeypatch, tmp_path):
    from huggingface_hub.utils import filter_repo_objects

    fetched: list[str] = []

    def snapshot(_repo, *, allow_patterns, ignore_patterns=None, **_options):
        fetched.extend(filter_repo_objects(REPO, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns))
        return str(tmp_path)

    siblings = [SimpleNamespace(rfilename=name) for name in REPO]
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_a, **_k: SimpleNamespace(siblings=siblings))
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    weights_files.download("a/b", "main", ModelSpec("hf:a/b"))
    assert fetched == REPO[:3]


def test_a_hub_model_is_pinned_to_a_commit_or_says_that_it_is_not():
    for name, row in models().items():
        if "hub" in row:
            pinned = bool(re.fullmatch("[0-9a-f]{40}", row.get("revision", "")))
            assert row["revision_status"] == ("pinned" if pinned else "unpinned") and pinned == ("revision" in row), (
                name
            )
    assert models()["siglip2-so400m-224"]["revision"] == "78e403963a4f6a3640d07803284752326fdf4edf"


def test_the_file_of_a_librarys_row_is_fetched_at_its_commit(monkeypatch):
    asked = []
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *words, **how: asked.append((words, how)) or "FILE")
    row = models()["pe-core-b16-224"]
    found = weights_files.pinned_file(ModelSpec("pe-core-b16-224", row), "open_clip_model.safetensors")
    how = {"revision": row["revision"], "local_files_only": False}
    assert found == "FILE" and asked == [((row["hub"], "open_clip_model.safetensors"), how)]
    assert weights_files.pinned_file(ModelSpec("x", row, weights="own.safetensors"), "f") is None
    assert weights_files.pinned_file(ModelSpec("x", {"hub": "a/b"}), "f") is None
    monkeypatch.undo()
    with pytest.raises(WeightsError, match="cannot be had .* By hand: hf download timm/PE-Core-B-16 f --revision 0038"):
        weights_files.pinned_file(ModelSpec("x", row, offline=True), "f")


def test_a_cached_copy_without_those_is_whole_and_one_without_its_tokenizer_is_fetched_on(monkeypatch, saved, tmp_path):
    """huggingface_hub 2 keeps the list of a commit's files and calls a copy incomplete for any that is not there."""
    commit, store = "0" * 40, tmp_path / "models--a--b"
    folder = shutil.copytree(saved / "clip", store / "snapshots" / commit)
    names = [p.name for p in folder.iterdir()]
    listing = {name: {"size": 1, "blob_id": "0" * 40} for name in [*names, *REPO[3:], "pytorch_model.bin"]}
    (store / "trees").mkdir()
    (store / f"trees/{commit}.json").write_text(json.dumps({"format_version": 1, "files": listing}))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_a, **_k: pytest.fail("the hub was asked"))
    for offline in (True, False):
        assert weights_files.download("a/b", commit, ModelSpec("hf:a/b", offline=offline)) == folder
    (folder / next(n for n in names if "token" in n or "merges" in n)).unlink()
    assert weights_files.download("a/b", commit, ModelSpec("hf:a/b", offline=True)) == folder  # the loader says it

    def asked(*_args, **_options):
        raise ConnectionError("asked")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", asked)
    assert weights_files.download("a/b", commit, ModelSpec("hf:a/b")) == folder  # the hub cannot be reached: as offline
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="the hub cannot be reached .ConnectionError: asked"):
        weights_files.download("a/b", commit, ModelSpec("hf:a/b"))
