"""bench check tells a CLS that attends to one patch, as a trained one may, from a patch that is read as CLS."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from family_models import save_dino
from wrong_adapters import Wrong

from benchmark import load_encoder
from benchmark.check import check_encoder
from benchmark.check.image_side import ImageChecks
from benchmark.check.orientation import with_squares
from benchmark.check.pooled import ALONE, ITSELF, changes, one_patch

CORNER = (7, 7)


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A loader of a ViT of 8 x 8 patches whose CLS attends to the last: `where` and `values` say how much."""
    folder = tmp_path_factory.mktemp("vit") / "vit"
    save_dino(folder, "dinov2", hidden_size=64, num_attention_heads=4, image_size=64, patch_size=8)

    def load(where=0.0, values=1.0):
        encoder = load_encoder(f"hf:{folder}")
        first, embeddings = encoder.model.encoder.layer[0].attention, encoder.model.embeddings
        with torch.no_grad():
            if where:  # a position that the query of CLS, and of no other token, asks for in every head
                embeddings.position_embeddings[0, -1, 0] += where
                embeddings.cls_token[..., 1] += 4
                for projection, coordinate in ((first.q_proj, 1), (first.k_proj, 0)):
                    projection.weight[::16] = 0
                    projection.weight[::16, coordinate] = 2
            first.v_proj.weight.mul_(values)
        return encoder

    return load


def pooled(encoder):
    (finding,) = [f for f in check_encoder(encoder, cheap=True).findings if f.name == "pooled vector"]
    return finding


@pytest.mark.parametrize(("where", "values"), [(0, 1), (2, 1), (2, 5), (2, 20), (4, 1), (4, 5)])
def test_a_vit_whose_cls_attends_to_one_patch_passes(where, values, vit):
    finding = pooled(vit(where, values))
    assert finding.ok, finding


def test_the_patch_that_such_a_cls_attends_to_moves_it_as_no_other_does(vit):
    checks = ImageChecks(vit(2, 5), "cpu")
    dim = checks.images(1, 64, 64, seed=5) * 0.3
    after = checks.encode(with_squares(dim, 8, [CORNER, (0, 0), (0, 7), (7, 0), (3, 4)], opposite=True)).cls
    change = changes(checks.encode(dim).cls, after)[:, 0]
    assert change[0] > ALONE * change[1:].max()
    assert one_patch(checks) is None  # brighter pictures have others to attend to


def test_one_patch_alone_that_moves_itself_further_is_said_and_no_failure(vit):
    encoder = vit(4, 5)
    alone = one_patch(ImageChecks(encoder, "cpu"))
    assert alone is not None
    place, share = alone
    assert place == CORNER and share < ITSELF
    assert pooled(encoder).value == f"patch (7, 7) alone moves it, {share:.1g} as far as itself: looks like attention"


def normed(patch):
    weight = torch.rand(patch.shape[-1], generator=torch.Generator().manual_seed(1))
    return F.layer_norm(patch * weight, patch.shape[-1:])


def projected(patch):
    width = patch.shape[-1]
    return F.layer_norm(patch, [width]) @ torch.randn(width, width, generator=torch.Generator().manual_seed(1))


def through_a_head(patch):
    return projected(F.gelu(projected(patch)))


@pytest.mark.parametrize("at", [0, -1])
@pytest.mark.parametrize("head", [normed, projected, through_a_head])
@pytest.mark.parametrize("base", ["plain", "attending", "tipsv2-mini", "clip-mini", "random-vit"])
def test_a_patch_that_is_read_as_cls_through_a_norm_or_a_head_is_refused(base, head, at, vit):
    right = {"plain": lambda: vit(), "attending": lambda: vit(2, 5)}.get(base, lambda: load_encoder(base))()

    def patch_as_cls(forward, images, request, _depth):
        found = forward(images, request)
        return replace(found, cls=head(found.patches[:, at, at])[:, None].expand_as(found.cls).clone())

    finding = pooled(Wrong(right, patch_as_cls))
    assert not finding.ok and "is a patch taken for the CLS token?" in finding.detail
