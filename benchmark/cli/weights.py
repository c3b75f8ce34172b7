"""How the weights of a registered model are had: what `bench show NAME` and the site's page of models print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FILES = {"timm": "model.safetensors", "open_clip": "open_clip_model.safetensors"}  # what each library saves on the hub


def steps(name: str, row: Mapping[str, Any]) -> list[str]:
    """One command or sentence a step; none for what is in the package or has its own lines elsewhere (`npz`)."""
    hub, library = row.get("hub"), str(row.get("library", "")).partition(":")[0]
    if "files" in row:
        extra = [f"pip install 'densebench[{library}]'"] if library else []
        return [*extra, str(row["files"]), f"bench run --model {name} --weights FILE_OR_FOLDER"]
    if not hub:
        return []
    at = f" --revision {row['revision']}" if "revision" in row else ""
    one = f" {FILES[library]}" if library else ""
    first = [f"pip install 'densebench[{library}]'"] if library else []
    if row.get("gated"):
        first = [f"Accept the licence at https://huggingface.co/{hub}, then: hf auth login"]
    return [
        *first,
        f"bench run --model {name}",
        f"By hand: hf download {hub}{one}{at} --local-dir {name}, then bench run --model {name} --weights {name}",
    ]
