"""Class names and prompt templates: one per line in `tasks/prompts/<name>.txt`."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from benchmark.errors import unknown
from benchmark.system.texts import split_lines

SOURCES = {
    "ade150_classes": "ADE20K's first names, as in the TIPS zero-shot notebook ('bed ' in mmsegmentation and DINOv3's)",
    "voc21_classes": "PASCAL VOC 2012 with background first (mmsegmentation)",
    "pc59_classes": "PASCAL Context's 59 frequent classes, in mmsegmentation's order",
    "pc60_classes": "the same with background first",
    "pc60_raw_labels": "PASCAL Context's 459-label number of each of the 60 (mmsegmentation's converter)",
    "imagenet1k_classes": "OpenAI CLIP's curated ImageNet names, in synset order (open_clip's copy)",
    "imagenet1k_synsets": "the 1,000 WordNet ids of ILSVRC2012, sorted: the class order everybody uses",
    "openai_imagenet_80": "OpenAI CLIP's 80 ImageNet templates",
    "tcl_9": "TCL's `custom` templates: seven of the ImageNet subset, 'many' and the plural",
}


@cache
def prompt_list(name: str) -> tuple[str, ...]:
    """The lines of `tasks/prompts/<name>.txt`. Raises UsageError with the closest names."""
    path = files("tasks") / "prompts" / f"{name}.txt"
    if not path.is_file():
        raise unknown("prompt list", name, SOURCES, ", ".join(SOURCES))
    return tuple(split_lines(path.read_text(encoding="utf-8")))
