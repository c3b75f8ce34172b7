#!/usr/bin/env bash
# A segmentation mask of uint8 compared with the ignore label -1: torch 2.13.0 takes -1 for 255, numpy 2.3.5 does not.
#
# Guess: no pixel of a uint8 mask equals -1, so `mask != -1` keeps all of them, as numpy has it.
# Seen:  torch wraps the Python number into the tensor's type first: `mask != -1` leaves out the pixels of class 255, and
#        bincount over what is kept has lost a class without a word. Widening the mask first (`mask.long()`) mends it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.3.5
output=$("$folder/venv/bin/python" - <<'PY'
import numpy as np
import torch

mask = np.array([0, 1, 254, 255, 255], np.uint8)
print("numpy keeps", int((mask != -1).sum()), "of 5")
print("torch keeps", int((torch.from_numpy(mask) != -1).sum()), "of 5")
print("torch, widened, keeps", int((torch.from_numpy(mask).long() != -1).sum()), "of 5")
PY
)
echo "$output"
[ "$output" = "numpy keeps 5 of 5
torch keeps 3 of 5
torch, widened, keeps 5 of 5" ]
