"""An encoder of the user's own is another one as soon as any of its sources, its weights or the wish has changed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark import EncoderCard, ImageFeatures, ImageTransform, WeightsInfo, load_encoder, load_task
from benchmark.contracts import identity
from benchmark.engine.loading import as_loaded
from benchmark.engine.run import run
from benchmark.errors import UsageError

NETWORK = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Linear(192, 4)
        torch.nn.init.constant_(self.embed.weight, 0.1)
        torch.nn.init.zeros_(self.embed.bias)
"""
ENCODER = """
import numpy, torch
from benchmark import EncoderCard, ImageFeatures, ImageTransform, WeightsInfo
from own_network import Net
class Mine:
    def __init__(self, spec):
        self.net = Net()
        self.gain = torch.from_numpy(numpy.load("{folder}/w.npy"))
        self.type = getattr(torch, "float32" if spec.dtype == "auto" else spec.dtype)
        self.transform = ImageTransform("square", 32)
        self.card = EncoderCard("mine", "own", "torch", 4, 8, 32, 0, 1, False, WeightsInfo("w.npy", ""), "MIT")
    @torch.inference_mode()
    def encode_image(self, images, request=None):
        import own_helper
        cells = torch.nn.functional.unfold(images, 8, stride=8).transpose(1, 2)
        tokens = (self.net.embed(cells) * self.gain).to(self.type).float()
        side = int(tokens.shape[1] ** 0.5)
        return ImageFeatures(tokens.mean(1, keepdim=True), tokens.reshape(len(tokens), side, side, -1))
def build(spec):
    return Mine(spec)
"""
BENT = """
def bent(spec):
    mine = Mine(spec)
    straight = mine.encode_image
    def encode_image(images, request=None):
        found = straight(images, request)
        return ImageFeatures(found.cls, found.patches.flip(1))
    mine.encode_image = encode_image
    return mine
def fixed():
    return Mine(__import__("types").SimpleNamespace(dtype="auto"))
"""
LISTED = """
def listed(spec):
    mine = Mine(spec)
    mine.net = [mine.net]
    return mine
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with an encoder, the network it imports, a helper it imports late, and a weight file."""
    (tmp_path / "own_encoder.py").write_text(ENCODER.replace("{folder}", str(tmp_path)))
    (tmp_path / "own_network.py").write_text(NETWORK)
    (tmp_path / "own_helper.py").write_text("")
    weights(tmp_path, 1.0)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    forget()


def weights(folder: Path, gain: float) -> None:
    np.save(folder / "w.npy", np.array([gain, 1, 2, 3], np.float32))


def forget() -> None:
    """As in a new process."""
    for name in ("own_encoder", "own_network", "own_helper", "own_helper.inner"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


def edit(file: Path, text: str = "# edited\n") -> None:
    file.write_text(file.read_text() + text)


def loaded(model: str, **options: Any) -> dict[str, object]:
    return dict(identity(load_encoder(model, device="cpu", **options).card))


@pytest.mark.parametrize("model", ["{folder}/own_encoder.py:build", "own_encoder:build"])
@pytest.mark.parametrize("file", ["own_encoder.py", "own_network.py", "own_helper.py"])
def test_an_edit_of_any_own_source_is_another_version(folder, model, file):
    model = model.replace("{folder}", str(folder))
    before = loaded(model)
    forget()
    assert loaded(model) == before
    forget()
    edit(folder / file)
    after = loaded(model)
    assert {k for k in after if after[k] != before[k]} == {"code"}


def test_code_in_memory_keeps_the_version_it_was_loaded_with(folder):
    before = loaded("own_encoder:build")
    edit(folder / "own_network.py")
    assert loaded("own_encoder:build") == before


def test_other_modules_of_the_process_and_its_packages_do_not_count(folder, monkeypatch):
    before = loaded("own_encoder:build")
    (folder / "own_stranger.py").write_text("import own_network\n")
    monkeypatch.setitem(sys.modules, "own_stranger", importlib.import_module("own_stranger"))
    assert loaded("own_encoder:build") == before


def test_a_class_made_by_a_late_import_counts(folder):
    """A registry that imports by a computed name leaves no import to be read in the file."""
    file = folder / "own_encoder.py"
    dynamic = 'import importlib\nNet = importlib.import_module("own_" + "network").Net'
    file.write_text(file.read_text().replace("from own_network import Net", dynamic))
    before = loaded(f"{file}:build")
    forget()
    edit(folder / "own_network.py")
    assert loaded(f"{file}:build")["code"] != before["code"]


def test_what_was_asked_for_is_in_the_card_though_the_author_says_nothing(folder):
    model = f"{folder}/own_encoder.py:build"
    assert loaded(model)["options"] == []
    assert loaded(model, dtype="bfloat16")["options"] == [["dtype", "bfloat16"]]
    assert loaded(model, options={"compile": "1"})["options"] == [["compile", "1"]]


def test_plain_tensors_and_networks_in_lists_are_weights_too(folder):
    before = loaded("own_encoder:build")["weights"]
    weights(folder, 2.0)
    other = loaded("own_encoder:build")["weights"]
    assert other != before
    edit(folder / "own_encoder.py", LISTED)
    forget()
    assert loaded("own_encoder:listed")["weights"] not in (before, other)


@pytest.mark.parametrize("model", ["{folder}/own_encoder.py:build", "own_encoder:build"])
def test_a_finished_row_counts_only_for_the_same_code_and_weights(folder, model):
    model = model.replace("{folder}", str(folder))

    def again(**more) -> tuple[int, int]:
        forget()
        options = {"limit": 24, "results": folder / "results", "cache": folder / "cache", "check": False, **more}
        report = run(model, "instance_retrieval/scenes", **options)
        assert not report.failures and len(report.rows) == 1
        return report.reused, sum(report.forwards.values())

    assert again() == (0, 24)
    assert again() == (1, 0)
    edit(folder / "own_network.py", "        self.embed.weight.data[0] = 0.2\n")
    assert again() == (0, 24)
    weights(folder, 2.0)
    assert again() == (0, 24)
    assert again(dtype="bfloat16") == (0, 24), "float32 features are not those of bfloat16"
    assert again() == (1, 0)


def test_two_functions_of_one_file_are_two_encoders_though_their_weights_are_one(folder):
    edit(folder / "own_encoder.py", BENT)
    file = folder / "own_encoder.py"
    one, other = load_encoder(f"{file}:build"), load_encoder(f"{file}:bent")
    assert one.card.weights.sha256 == other.card.weights.sha256
    assert identity(one.card) != identity(other.card)


def test_a_placeholder_is_no_sha256(folder):
    file = folder / "own_encoder.py"
    file.write_text(file.read_text().replace('WeightsInfo("w.npy", "")', 'WeightsInfo("w.npy", "unknown")'))
    first = load_encoder(f"{file}:build").card.weights.sha256
    weights(folder, 2.0)
    assert len(first) == 64 and load_encoder(f"{file}:build").card.weights.sha256 != first


@pytest.mark.parametrize(("file", "what"), [("size.txt", "code"), ("basis.npy", "weights")])
def test_a_size_and_an_array_out_of_a_file_count(folder, file, what):
    """A transform that a JSON file states, a projection that numpy holds: no source and no tensor tells of them."""
    encoder = folder / "own_encoder.py"
    text = encoder.read_text().replace(
        'ImageTransform("square", 32)', f'ImageTransform("square", int(open("{folder}/size.txt").read()))'
    )
    basis = f'self.basis = numpy.load("{folder}/basis.npy")'
    encoder.write_text(text.replace("self.net = Net()", f"self.net = Net(); {basis}"))
    (folder / "size.txt").write_text("32")
    np.save(folder / "basis.npy", np.eye(2))
    before = loaded("own_encoder:build")
    forget()
    assert loaded("own_encoder:build") == before
    forget()
    if file == "size.txt":
        (folder / file).write_text("64")
    else:
        np.save(folder / file, np.ones((2, 2)))
    after = loaded("own_encoder:build")
    assert {key for key in after if after[key] != before[key]} == {what}


def test_weights_that_would_go_unread_are_refused(folder):
    edit(folder / "own_encoder.py", BENT)
    with pytest.raises(UsageError, match="would go unread: fixed takes no ModelSpec"):
        load_encoder(f"{folder / 'own_encoder.py'}:fixed", weights=str(folder / "w.npy"))


def test_a_file_may_import_its_neighbours(tmp_path, monkeypatch):
    for name in ("own_encoder", "own_network", "own_helper"):
        sys.modules.pop(name, None)
    (tmp_path / "own_encoder.py").write_text(ENCODER.replace("{folder}", str(tmp_path)))
    (tmp_path / "own_network.py").write_text(NETWORK)
    (tmp_path / "own_helper.py").write_text("")
    weights(tmp_path, 1.0)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert load_encoder(f"{tmp_path / 'own_encoder.py'}:build").card.name
    forget()


def test_helpers_of_one_name_beside_two_files_are_two_modules(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    for project, inner in (("p", 1.0), ("q", 2.0), ("p/deeper", 3.0)):
        package = tmp_path / project / "own_helper"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "inner.py").write_text(f"GAIN = {inner}\n")
        text = ENCODER.replace("from own_network import Net", "from own_helper.inner import GAIN")
        text = text.replace("Net()", "torch.nn.Linear(192, 4)").replace("{folder}", str(tmp_path))
        (tmp_path / project / "own_encoder.py").write_text(text.replace('"MIT"', 'f"licence {GAIN}"'))
    weights(tmp_path, 1.0)
    forget()
    found: dict[str, Any] = {}
    for project in ("p", "q", "p/deeper", "p", "q"):
        card = load_encoder(f"{tmp_path}/{project}/own_encoder.py:build", device="cpu").card
        assert found.setdefault(project, (card.licence, card.code_version)) == (card.licence, card.code_version)
    assert [found[project][0] for project in ("p", "q", "p/deeper")] == ["licence 1.0", "licence 2.0", "licence 3.0"]
    assert len({version for _, version in found.values()}) == 3
    forget()


class Trained:
    """An object as a training loop has it: its card names no weights that would change."""

    def __init__(self) -> None:
        self.net = torch.nn.Linear(3 * 8 * 8, 8)
        torch.nn.init.normal_(self.net.weight, generator=torch.Generator().manual_seed(0))
        self.transform, self.encoded = ImageTransform("square", 32), 0
        weights = WeightsInfo("in memory", "0" * 64)
        self.card = EncoderCard("trained", "own", "torch", 8, 8, 32, 0, 1, False, weights, "MIT")

    @torch.inference_mode()
    def encode_image(self, images: torch.Tensor, request: object = None) -> ImageFeatures:
        self.encoded += len(images)
        patches = torch.nn.functional.unfold(images, 8, stride=8).transpose(1, 2)
        tokens = self.net(patches).view(len(images), 4, 4, 8)
        return ImageFeatures(tokens.amax((1, 2))[:, None], tokens)


@pytest.mark.parametrize("weak", [True, False])
def test_an_object_is_scored_by_the_weights_it_holds_now(tmp_path: Path, weak: bool) -> None:
    encoder = Trained() if weak else type("Unhashable", (Trained,), {"__hash__": None})()  # type: ignore[arg-type]
    task = load_task("instance_retrieval/scenes", limit=20, cache=tmp_path, workers=0)
    task.run(encoder)
    once = encoder.encoded
    task.run(encoder)
    assert encoder.encoded == (once if weak else 2 * once)
    encoder.net.weight.data[:, 50:] = 0  # as an average of weights does, past torch's count of changes
    task.run(encoder)
    assert encoder.encoded == (2 * once if weak else 3 * once)


def test_an_encoder_by_name_shares_what_is_stored_until_it_is_trained(tmp_path: Path) -> None:
    encoder = load_encoder("random-vit", device="cpu")
    assert as_loaded(encoder) and not as_loaded(Trained())
    task = load_task("instance_retrieval/scenes", limit=20, cache=tmp_path, workers=0)
    task.run(encoder)
    stored = sorted((tmp_path / "features").rglob("*"))
    encoder.image["embed"].mul_(2)  # type: ignore[attr-defined]
    assert stored and not as_loaded(encoder)
    task.run(encoder)
    assert sorted((tmp_path / "features").rglob("*")) == stored
