"""Class names and templates, pinned whole: a changed word changes every zero-shot number."""

from __future__ import annotations

import hashlib

import pytest

from benchmark.errors import UsageError
from tasks.datasets.prompts import SOURCES, prompt_list

PINNED = {
    "ade150_classes": (150, "f9dbd8a75a0722c9"),
    "voc21_classes": (21, "301e5e4e2a9a7ab6"),
    "pc59_classes": (59, "cd808465f06a1616"),
    "pc60_classes": (60, "e29ff1a0eaea71eb"),
    "pc60_raw_labels": (60, "7dece2ccb305dd1d"),
    "imagenet1k_classes": (1000, "571ae1c583b4be7d"),
    "imagenet1k_synsets": (1000, "385e0240499426c0"),
    "openai_imagenet_80": (80, "4f976686fb651bb5"),
    "tcl_9": (9, "4592439986cdd96b"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_list_is_the_pinned_one(name):
    lines = prompt_list(name)
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    assert (len(lines), digest) == PINNED[name]
    assert all(line and line == line.strip() for line in lines)


def test_mmsegmentation_spells_the_classes_alike():
    import ast
    from importlib.util import find_spec
    from pathlib import Path

    folder = Path(str(find_spec("mmseg").origin)).parent / "datasets"
    for file, owner, name in (
        ("ade.py", "ADE20KDataset", "ade150_classes"),
        ("voc.py", "PascalVOCDataset", "voc21_classes"),
        ("pascal_context.py", "PascalContextDataset", "pc60_classes"),
        ("pascal_context.py", "PascalContextDataset59", "pc59_classes"),
    ):
        tree = ast.parse((folder / file).read_text())
        body = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == owner).body
        meta = next(n.value for n in body if isinstance(n, ast.Assign) and n.targets[0].id == "METAINFO")
        classes = ast.literal_eval(next(k.value for k in meta.keywords if k.arg == "classes"))
        assert tuple(c.strip() for c in classes) == prompt_list(name)


def test_templates_have_one_place_for_the_name():
    for name in ("openai_imagenet_80", "tcl_9"):
        assert all(template.count("{}") == 1 for template in prompt_list(name))
    assert sum(t in prompt_list("openai_imagenet_80") for t in prompt_list("tcl_9")) == 8  # all but the plural


def test_synsets_are_sorted_and_unique():
    synsets = prompt_list("imagenet1k_synsets")
    assert list(synsets) == sorted(set(synsets)) and synsets[0] == "n01440764" and synsets[-1] == "n15075141"


def test_unknown_list_names_the_closest():
    with pytest.raises(UsageError, match="Did you mean 'tcl_9'"):
        prompt_list("tcl9")
