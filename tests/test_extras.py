"""timm and open_clip with --weights, odd sizes and towers without a map: on the libraries' surface, not themselves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from adapters import open_clip_models, timm_models
from benchmark import load_encoder
from benchmark.contracts import ImageRequest, ModelSpec
from benchmark.errors import BenchError, EncoderError, UsageError, WeightsError

HALF, ZERO = (0.5, 0.5, 0.5), (0.0, 0.0, 0.0)
DATA = {
    "input_size": (3, 32, 32),
    "crop_pct": 1.0,
    "crop_mode": "center",
    "interpolation": "bicubic",
    "mean": HALF,
    "std": HALF,
}


def refusal(call, kind: type[BenchError] = UsageError) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def check_layers(encoder, images) -> None:
    """Of three blocks that are once, twice and three times the first, and a final norm that is times ten."""
    plain = encoder.encode_image(images)
    for final_norm, scale in ((True, 1), (False, 10)):
        found = encoder.encode_image(images, ImageRequest((-1, 0, -1), final_norm=final_norm))
        torch.testing.assert_close(found.patches, plain.patches)
        last, first, again = found.layers
        torch.testing.assert_close(last.patches * scale, plain.patches)
        torch.testing.assert_close(first.patches * 3, last.patches)
        torch.testing.assert_close(last.cls[:, 0], last.patches.amax((1, 2)))
        assert torch.equal(again.patches, last.patches)
    assert "blocks 0 to 2, layer 3" in refusal(lambda: encoder.encode_image(images, ImageRequest((3,))))


# ------------------------------------------------------------------------------------------------ open_clip


class Tower(nn.Module):
    """open_clip's surface of a two-tower model; QuickGELU moves the features as it does there."""

    def __init__(self, size, patch, quick):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Conv2d(3, 6, patch, patch)
        self.size, self.quick = size, quick

    def forward_intermediates(self, image, *_asked, **_options) -> Any:
        assert image.shape[-2:] == (self.size, self.size), "it takes its own size only"
        tokens = self.embed(image)
        tokens = tokens * torch.sigmoid(1.702 * tokens) if self.quick else nn.functional.gelu(tokens)
        return {"image_features": tokens.mean((2, 3)), "image_intermediates": [tokens]}


class BlockTower(Tower):
    """The surface with three blocks, CLS tokens and a final norm (here: times ten)."""

    def forward_intermediates(
        self, image, image_indices, normalize_intermediates, image_output_extra_tokens, **_options
    ):
        tokens = self.embed(image)
        chosen = [0, 1, 2] if image_indices is None else [2] if image_indices == 1 else sorted(image_indices)
        scale = 10 if normalize_intermediates else 1
        maps = [tokens * (block + 1) * scale for block in chosen]
        return {
            "image_features": tokens.mean((2, 3)),
            "image_intermediates": maps,
            "image_intermediates_prefix": [m.amax((2, 3))[:, None] for m in maps],
        }


def laion(**more):
    return {"mean": ZERO, "std": HALF, "interpolation": "bicubic", "resize_mode": "shortest", **more}


TAGS = {
    "mixed": {"openai": laion(quick_gelu=True), "webli": laion(mean=HALF, interpolation="bilinear")},
    "agreed": {
        "one": laion(quick_gelu=True, resize_mode="squash"),
        "two": laion(quick_gelu=True, resize_mode="squash"),
    },
    "own": {},
}


def package(size=32, patch=8, tower=Tower):
    def create_model(arch, pretrained, force_quick_gelu, **_options):
        return tower(size, patch, force_quick_gelu)

    return SimpleNamespace(
        list_models=lambda: list(TAGS),
        list_pretrained_tags_by_model=lambda arch: list(TAGS[arch]),
        get_pretrained_cfg=lambda arch, tag: TAGS[arch].get(tag, {}),
        get_model_config=lambda arch: {},
        create_model=create_model,
        # what open_clip says of a model with a local file: its defaults, whatever TAG was written
        get_model_preprocess_cfg=lambda model: {"size": size, **laion()},
        get_tokenizer=lambda arch: lambda texts: torch.ones(len(texts), 4, dtype=torch.long),
    )


@pytest.fixture
def open_clip(monkeypatch):
    def load(target, weights="mine.pt", **changes):
        monkeypatch.setattr(open_clip_models, "import_extra", lambda *_names: package(**changes))
        spec = ModelSpec(f"open_clip:{target}", target=target, weights=weights, device="cpu", dtype="float32")
        return open_clip_models.build(spec)

    return load


def test_a_local_file_is_run_as_its_tag_was_trained(open_clip):
    quick, plain = open_clip("mixed/openai"), open_clip("mixed/webli")
    assert (quick.model.quick, plain.model.quick) == (True, False)
    assert (plain.transform.mean, plain.transform.interpolation) == (HALF, "bilinear")
    assert quick.transform.mean == ZERO
    assert quick.card.weights.sha256 != plain.card.weights.sha256  # the tensors are the same, the outputs are not
    published = open_clip("mixed/openai", weights=None)
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(quick.encode_image(images).cls, published.encode_image(images).cls)


def test_an_architecture_alone_will_do_where_its_tags_agree(open_clip):
    agreed = open_clip("agreed")
    assert agreed.model.quick and agreed.transform.resize == "square"
    assert not open_clip("own").model.quick
    message = refusal(lambda: open_clip("mixed"))
    assert message.endswith("Write open_clip:mixed/TAG with the tag your file was trained like, one of: openai, webli")
    assert "open_clip has no weights 'weblii' for mixed" in refusal(lambda: open_clip("mixed/weblii"))


def test_an_open_clip_model_takes_its_own_size_unpadded(open_clip):
    encoder = open_clip("agreed", size=30, patch=7)
    assert (encoder.card.patch_size, encoder.encode_image(torch.rand(1, 3, 30, 30)).patches.shape) == (7, (1, 4, 4, 6))
    assert "does not take 35x35 pixels (it takes its own size only)" in refusal(
        lambda: encoder.encode_image(torch.rand(1, 3, 33, 33)), EncoderError
    )


def test_a_named_row_says_family_and_licence_and_a_folder_holds_the_file(open_clip, tmp_path):
    row = {"family": "pe", "licence": "Apache-2.0"}
    (tmp_path / "open_clip_model.safetensors").touch()
    (tmp_path / "other.safetensors").touch()
    spec = ModelSpec("pe-core-b16-224", row, target="agreed/one", weights=str(tmp_path), device="cpu")
    open_clip("agreed")
    card = open_clip_models.build(spec).card
    assert (card.name, card.family, card.licence) == ("pe-core-b16-224", "pe", "Apache-2.0")
    assert open_clip_models.file_in(spec) == str(tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_model.safetensors").unlink()
    assert open_clip_models.file_in(spec) == str(tmp_path / "other.safetensors")
    (tmp_path / "other.safetensors").unlink()
    assert "no open_clip_model.safetensors in" in refusal(lambda: open_clip_models.file_in(spec), WeightsError)


def test_a_name_whose_file_is_on_no_hub_never_takes_another_models_weights():
    """iBOT is built as timm's MAE is: without its file, MAE's weights would be scored under its name."""
    message = refusal(lambda: load_encoder("ibot-l16"), WeightsError)
    assert message == "ibot-l16 is on no hub as safetensors. bench show ibot-l16 says how to get its file"


def test_layers_of_open_clip_come_in_the_order_asked_for_with_and_without_the_final_norm(open_clip):
    encoder = open_clip("agreed", tower=lambda *sizes: BlockTower(*sizes))
    assert (encoder.card.depth, encoder.card.has_raw_layers) == (3, True)
    check_layers(encoder, torch.rand(2, 3, 32, 32))


def test_an_open_clip_tower_without_blocks_offers_no_layers(open_clip):
    class Convolutional(Tower):
        def forward_intermediates(self, image, **options):
            if "image_output_extra_tokens" in options:
                raise TypeError("unexpected keyword argument")
            return super().forward_intermediates(image)

    encoder = open_clip("agreed", tower=lambda *sizes: Convolutional(*sizes))
    assert encoder.card.depth == 1  # its one map is its last block


def test_an_open_clip_tower_without_a_map_says_how_to_wrap_it(open_clip):
    def broken(*_sizes):
        model = Tower(32, 8, False)
        model.forward_intermediates = lambda **_options: torch.zeros(2, 3) @ torch.zeros(2, 3)
        return model

    assert "Tower gives no map of patches for one picture" in refusal(lambda: open_clip("agreed", tower=broken))


# ------------------------------------------------------------------------------------------------ timm


class Vit(nn.Module):
    """timm's surface of a ViT: of one size, or, with `dynamic`, of any whole number of patches."""

    num_features = 6

    def __init__(self, size, patch, dynamic):
        super().__init__()
        self.embed = nn.Conv2d(3, 6, patch, patch)
        self.pos_embed = nn.Parameter(torch.zeros(1, (size // patch) ** 2, 6))
        self.size, self.dynamic = size, dynamic
        self.patch_embed = SimpleNamespace(patch_size=(patch, patch), grid_size=(size // patch,) * 2)

    def forward_features(self, x):
        patch = self.patch_embed.patch_size[0]
        assert x.shape[-1] % patch == 0 if self.dynamic else x.shape[-1] == self.size, f"wrong side {x.shape[-1]}"
        return self.embed(x).flatten(2).mT

    def forward_head(self, hidden, pre_logits):
        return hidden.mean(1)


class Blocks(Vit):
    """The surface with three blocks, CLS and a register, and a final norm (here: times ten)."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 6))

    def tokens(self, x):
        patches = super().forward_features(x)
        return torch.cat([patches.amax(1, keepdim=True), patches.amin(1, keepdim=True), patches], 1)

    def forward_features(self, x):
        return self.tokens(x) * 30

    def forward_intermediates(self, x, indices, return_prefix_tokens, norm):
        outputs = [self.tokens(x) * (block + 1) * (10 if norm else 1) for block in sorted(indices or range(3))]
        side = x.shape[-1] // self.patch_embed.patch_size[0]
        return self.forward_features(x), [(y[:, 2:].mT.unflatten(2, (side, -1)), y[:, :2]) for y in outputs]


class Stages(Blocks):
    """The same surface over maps of several sizes."""

    def forward_intermediates(self, x, *asked, **options):
        hidden, maps = super().forward_intermediates(x, *asked, **options)
        return hidden, [(nn.functional.avg_pool2d(maps[0][0], 2), None), *maps[1:]]


class BlockList(Vit):
    """The surface with a list of blocks."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.blocks = nn.Sequential(nn.Identity())


@pytest.fixture
def timm(monkeypatch):
    def load(size, patch, weights=None, name="vit", kind=Vit):
        data = {**DATA, "input_size": (3, size, size)}
        library = SimpleNamespace(
            is_model=lambda name: True,
            create_model=lambda name, pretrained, num_classes, dynamic_img_size=False: kind(
                size, patch, dynamic_img_size
            ),
            data=SimpleNamespace(resolve_model_data_config=lambda model: data),
        )
        monkeypatch.setattr(timm_models, "import_extra", lambda *_names: library)
        weights = weights and str(weights)
        spec = ModelSpec(f"timm:{name}", target=name, weights=weights, device="cpu", dtype="float32")
        return timm_models.build(spec)

    return load


def test_a_timm_model_takes_any_size_or_its_own_where_that_is_no_whole_patches(timm):
    assert timm(32, 8).encode_image(torch.rand(1, 3, 40, 40)).patches.shape == (1, 5, 5, 6)
    odd = timm(30, 7)
    assert not odd.model.dynamic
    assert odd.encode_image(torch.rand(1, 3, 30, 30)).patches.shape == (1, 4, 4, 6)
    assert "does not take 35x35 pixels (wrong side 35)" in refusal(
        lambda: odd.encode_image(torch.rand(1, 3, 33, 33)), EncoderError
    )


@pytest.mark.parametrize(
    ("mode", "pct", "resize", "size", "crop"),
    [
        ("center", 1.0, "short-side", 32, 32),  # most ViTs: nothing is stretched, however little is cropped
        ("center", 0.9, "short-side", 35, 32),
        ("squash", 1.0, "square", 32, None),
        ("squash", 0.9, "square", 35, 32),
    ],
)
def test_a_timm_picture_is_laid_out_as_timm_does(mode, pct, resize, size, crop):
    transform = timm_models.published({**DATA, "crop_mode": mode, "crop_pct": pct}, "timm:x")
    assert (transform.resize, transform.size, transform.crop) == (resize, size, crop)


def test_a_timm_picture_that_is_padded_or_no_square_is_refused():
    assert "timm:x: timm pads its pictures to a square (crop_mode border)" in refusal(
        lambda: timm_models.published({**DATA, "crop_mode": "border"}, "timm:x")
    )
    assert "size (64, 32) is not square" in refusal(
        lambda: timm_models.published({**DATA, "input_size": (3, 64, 32)}, "timm:x")
    )


def test_layers_of_timm_come_in_the_order_asked_for_with_and_without_the_final_norm(timm):
    encoder = timm(32, 8, kind=Blocks)
    assert (encoder.card.depth, encoder.card.has_raw_layers, encoder.prefix) == (3, True, 2)
    check_layers(encoder, torch.rand(2, 3, 32, 32))


def test_a_timm_model_without_equal_blocks_offers_no_layers(timm):
    for kind in (Vit, Stages):
        card = timm(32, 8, kind=kind).card
        assert (card.depth, card.has_raw_layers) == (0, False)


def test_a_timm_model_without_a_grid_says_how_to_wrap_it(timm):
    class Gridless(Vit):
        def __init__(self, *sizes):
            super().__init__(*sizes)
            del self.patch_embed

        def forward_features(self, x):
            return torch.zeros(1, 15, 6)

    assert "Gridless gives no map of patches for 32 pixels (" in refusal(lambda: timm(32, 8, kind=Gridless))


def test_timm_weights_of_a_file_or_a_folder(timm, tmp_path):
    state = Vit(32, 8, False).state_dict() | {"head.weight": torch.zeros(3, 6)}
    save_file({f"module.{k}": v for k, v in state.items()}, tmp_path / "model.safetensors")
    by_folder, by_file = timm(32, 8, tmp_path), timm(32, 8, tmp_path / "model.safetensors")
    assert torch.equal(by_folder.model.embed.weight, state["embed.weight"])
    assert by_folder.card.weights.sha256 == by_file.card.weights.sha256
    assert timm(32, 8, tmp_path, name="quickgelu").card.weights.sha256 != by_file.card.weights.sha256
    message = refusal(lambda: timm(48, 8, tmp_path), WeightsError)
    assert "has pos_embed of shape [1, 16, 6], the model needs [1, 36, 6]. Is it of another architecture" in message
    deeper = {**state, "blocks.3.weight": torch.zeros(6), "blocks.3.bias": torch.zeros(6)}
    save_file(deeper, tmp_path / "deeper.safetensors")
    message = refusal(lambda: timm(32, 8, tmp_path / "deeper.safetensors", kind=BlockList), WeightsError)
    assert "has blocks.3.bias (and 1 more) inside the blocks, where the model has no such weight" in message
    torch.save(state, tmp_path / "last.pth")
    message = refusal(lambda: timm(32, 8, tmp_path / "last.pth"), WeightsError)
    assert "last.pth is a pickle, which can run code and is never opened. If you trust it, convert it:" in message
    (tmp_path / "model.safetensors").unlink()
    assert f"no file {tmp_path}/model.safetensors" in refusal(lambda: timm(32, 8, tmp_path), WeightsError)
