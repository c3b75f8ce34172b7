#!/usr/bin/env bash
# A module under FSDP2 whose forward hands out one of its parameters beside its features (prototypes for a loss that
# multiplies them piece by piece): torch 2.13.0.
#
# Guess: what FSDP2 hangs on the outputs of a forward, to gather weights before backward, goes with the outputs.
# Seen:  it hooks every tensor that needs a gradient, and the parameter outlives the step: each step leaves one hook more
#        on it, for the whole run, and each backward calls all of them (16 microseconds each where we measured it, so that
#        the ten-thousandth step waits 0.16 s for them). Nothing warns. An output that is made anew has one hook always.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.3.5
output=$("$folder/venv/bin/python" -W ignore - <<'PY'
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard


class Net(nn.Module):
    def __init__(self, itself: bool) -> None:
        super().__init__()
        self.body, self.prototypes, self.itself = nn.Linear(4, 4), nn.Parameter(torch.randn(3, 4)), itself

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.body(x), self.prototypes if self.itself else self.prototypes + 0


dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
for itself in (True, False):
    net = fully_shard(Net(itself))
    hooks = []
    for _ in range(5):
        features, prototypes = net(torch.randn(2, 4))
        hooks.append(len(prototypes._backward_hooks))
        (features @ prototypes.T).sum().backward()
    print("the parameter" if itself else "made anew", *hooks)
dist.destroy_process_group()
PY
)
echo "$output"
[ "$output" = "the parameter 1 2 3 4 5
made anew 1 1 1 1 1" ]
