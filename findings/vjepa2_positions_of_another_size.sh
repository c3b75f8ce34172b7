#!/usr/bin/env bash
# V-JEPA 2 in transformers 5.24.0 on clips of another size than config.json's `crop_size`.
#
# Guess: as in DINOv3 and in V-JEPA 2's own code (RoPEAttention takes the clip's H_patches and W_patches), the rotary
#        positions are those of the clip's own grid; a clip of any size goes through without a warning.
# Seen:  rows, columns and frames are counted by crop_size. Of one time step of 96 pixels (6 x 6 patches) through a model
#        made for 64 (4 x 4), 16 tokens are the first frame, 16 the second and 4 the third; no patch of the fifth column
#        is in the fifth column. Patches differ from those of the same weights with `crop_size` 96.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.24.0
output=$(HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PY'
import torch
from transformers import VJEPA2Config, VJEPA2Model

shape = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=2, pred_num_hidden_layers=1,
             pred_hidden_size=24, pred_num_attention_heads=2)
torch.manual_seed(0)
model = VJEPA2Model(VJEPA2Config(crop_size=64, **shape)).eval()
for parameter in model.parameters():
    parameter.data += 0.3 * torch.randn_like(parameter)
other = VJEPA2Model(VJEPA2Config(crop_size=96, **shape)).eval()
other.load_state_dict(model.state_dict())
frames, rows, columns = model.encoder.layer[0].attention.get_position_ids(torch.zeros(1, 36, 48))
print("tokens of each frame:", frames.bincount().tolist(), "columns:", sorted(set(columns.tolist())))
clip = torch.rand(1, 2, 3, 96, 96)
with torch.no_grad():
    a, b = (m(clip, skip_predictor=True).last_hidden_state for m in (model, other))
print("differs by more than 1 %:", bool((a - b).abs().max() > 0.01 * b.abs().max()))
PY
)
echo "$output"
[ "$output" = "tokens of each frame: [16, 16, 4] columns: [0, 1, 2, 3]
differs by more than 1 %: True" ]
