#!/usr/bin/env bash
# Perception Encoder in timm 1.0.31 on pictures of another size than the model's own.
#
# Guess: as in the authors' code (facebookresearch/perception_models, rope.py: Rope2D.update_grid), rotary positions count
#        the patches: 1, 2, 3 … whatever the size of the picture.
# Seen:  timm squeezes them into the range of the model's own grid (EVA's scheme, ref_feat_shape). Of 6 columns through a
#        tower made for 4, the last is at 4, where the authors have 6.
# Also:  `forward_intermediates(…, return_prefix_tokens=True)` of a model without such tokens (PE core, spatial and lang G)
#        ends in an UnboundLocalError; timm's plain ViT gives empty tokens there.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 torchvision==0.28.0 timm==1.0.31
output=$("$folder/venv/bin/python" - <<'PY'
import timm
import torch
from timm.layers.pos_embed_sincos import _build_grid

shape = dict(img_size=64, depth=2, num_heads=4, embed_dim=64, ref_feat_shape=(4, 4), dynamic_img_size=True)
model = timm.create_model("vit_pe_core_tiny_patch16_384", **shape)
rope = model.rope
grid = _build_grid([4, 6], ref_feat_shape=rope.ref_feat_shape, grid_offset=rope.grid_offset, grid_indexing=rope.grid_indexing)
print("last column at", float(grid[..., 0].max()))
model = timm.create_model("vit_pe_core_tiny_patch16_384", class_token=False, **shape)
try:
    model.forward_intermediates(torch.rand(1, 3, 64, 64), return_prefix_tokens=True)
except NameError as error:
    print(type(error).__name__)
PY
)
echo "$output"
[ "$output" = "last column at 4.0
UnboundLocalError" ]
