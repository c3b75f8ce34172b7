"""An encoder of the user's own: `path/to/file.py:function` or `package.module:function`.

The function takes nothing, or one `ModelSpec`, and returns an object with `card`, `transform` and `encode_image`.
The text of the file and of every own module it imports counts as the adapter's code version, and so do the transform
and the sizes that the card states, which may come out of a file; what was asked for (--dtype, options) counts as one of
its options. An edit or another wish never meets the old features or rows.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from numbers import Integral
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import numpy as np
import torch

from adapters.own_sources import sources_digest
from benchmark.contracts import Encoder, EncoderCard, ImageTransform, ModelSpec, PromptRule, WeightsInfo
from benchmark.errors import BenchError, EncoderError, Ended, UsageError, staying
from benchmark.registry import check_local
from benchmark.system.digest import fingerprint

_lent: list[Path] = []  # folders put on sys.path for the files in them, the last one first


def build(spec: ModelSpec) -> Encoder:
    """The encoder that the named function returns, checked against the contract.

    Raises UsageError when file, module or function is missing or fails, EncoderError when the result is no encoder.
    """
    place, _, name = spec.target.rpartition(":")
    module = load_file(Path(place), spec.name) if place.endswith(".py") else load_module(place, spec.name)
    function = getattr(module, name, None)
    if not callable(function):
        public = [n for n, v in vars(module).items() if inspect.isfunction(v) and not n.startswith("_")]
        raise UsageError(f"{spec.name}: no function {name!r} in {place}. It has: {', '.join(public) or 'no functions'}")
    encoder = call(function, spec)
    check_contract(encoder, spec.name)
    encoder.card = complete_card(encoder, module, name, spec)
    return encoder


def load_file(path: Path, name: str) -> ModuleType:
    """The module in file `path`, run now. Raises EncoderError, naming the line, where it cannot be."""
    check_local(name)
    module_name = f"densebench_custom_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    found = importlib.util.spec_from_file_location(module_name, path)
    if found is None or found.loader is None:
        raise UsageError(f"{name}: {path} cannot be loaded as Python")
    module = importlib.util.module_from_spec(found)
    sys.modules[module_name] = module  # dataclasses and pickling of worker functions look it up
    lend(path.resolve().parent)
    try:
        with staying():
            found.loader.exec_module(module)
    except BenchError:
        raise
    except Exception as error:
        raise EncoderError(f"{name}: {blame(error, path)}") from error
    return module


def lend(folder: Path) -> None:
    """Lets a file of `folder` import its neighbours as `python FILE` would, after everything installed.

    The `helper` of two files in two folders is two modules: one that another folder lent before is forgotten where this
    one has its own, else this encoder would silently be made of the other one's code.
    """
    others = [other for other in _lent if other != folder]
    sys.path[:] = [entry for entry in sys.path if entry not in map(str, _lent)]
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        _lent[:] = [folder, *others]
    sys.path += map(str, others)
    for top in {name.partition(".")[0] for name in sys.modules}:
        here = (folder / f"{top}.py").is_file() or (folder / top).is_dir()
        if here and folder_of(sys.modules.get(top)) in others:
            for name in [n for n in sys.modules if n.partition(".")[0] == top]:
                del sys.modules[name]


def folder_of(module: ModuleType | None) -> Path | None:
    """Where a top-level module or package was found."""
    spec = getattr(module, "__spec__", None)
    if spec is None:
        return None
    inside = [*(spec.submodule_search_locations or ()), *([spec.origin] if spec.has_location else [])]
    return Path(inside[0]).parent if inside else None


def load_module(place: str, name: str) -> ModuleType:
    """The importable module `place`. Raises UsageError where it cannot be imported."""
    try:
        with staying():
            return importlib.import_module(place)
    except Exception as error:
        raise UsageError(
            f"{name}: cannot import {place!r} ({type(error).__name__}: {error}). "
            "Is the package installed, or the current folder on PYTHONPATH?"
        ) from error


def call(function: Callable[..., Any], spec: ModelSpec) -> Encoder:
    """What the user's `function` builds of `spec`, which it may take or leave out."""
    required = [
        p
        for p in inspect.signature(function).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if len(required) > 1:
        raise UsageError(f"{spec.name}: the function may take one ModelSpec or nothing, it takes {len(required)}")
    takes_spec = bool(required) or "spec" in inspect.signature(function).parameters
    if spec.weights and not takes_spec:
        raise UsageError(
            f"{spec.name}: --weights {spec.weights} would go unread: {function.__name__} takes no ModelSpec. "
            "Let it take one and load spec.weights"
        )
    try:
        with staying():
            encoder: Encoder = function(spec) if takes_spec else function()
        return encoder
    except BenchError:
        raise
    except Exception as error:
        raise EncoderError(f"{spec.name}: {blame(error, Path(inspect.getfile(function)))}") from error


def blame(error: Exception, path: Path) -> str:
    """`file:line: Error: message`, the line being the last one inside the user's file."""
    raised = error.__cause__ if isinstance(error, Ended) and error.__cause__ else error
    frames = traceback.extract_tb(raised.__traceback__)
    inside = [f.lineno for f in frames if Path(f.filename).resolve() == path.resolve()]
    line = error.lineno if isinstance(error, SyntaxError) else (inside[-1] if inside else None)
    text = (str(error).splitlines() or [""])[0]
    kind = "" if isinstance(error, Ended) else f"{type(error).__name__}: "
    return f"{path}{f':{line}' if line else ''}: {kind}{text}"


def check_contract(encoder: Any, name: str) -> None:
    """Raises EncoderError naming the first member that is missing or of the wrong type."""
    if encoder is None:
        raise EncoderError(f"{name}: the function returned None. Let it return the encoder")
    kind = type(encoder).__name__
    if not isinstance(getattr(encoder, "card", None), EncoderCard):
        raise EncoderError(f"{name}: {kind}.card must be an EncoderCard (from benchmark.contracts)")
    if not isinstance(getattr(encoder, "transform", None), ImageTransform):
        raise EncoderError(f"{name}: {kind}.transform must be an ImageTransform (from benchmark.contracts)")
    if not callable(getattr(encoder, "encode_image", None)):
        raise EncoderError(f"{name}: {kind} has no encode_image(images, request)")
    card = encoder.card
    check_types(card, name)
    if card.has_text and not callable(getattr(encoder, "encode_text", None)):
        raise EncoderError(f"{name}: the card says has_text, but {kind} has no encode_text(texts)")
    if card.has_text and card.text_dim < 1:
        raise EncoderError(f"{name}: the card has text and text_dim {card.text_dim}; give encode_text's width")
    if card.prompts not in get_args(PromptRule):
        raise EncoderError(
            f"{name}: card.prompts is {card.prompts!r}, must be one of {', '.join(get_args(PromptRule))}"
        )
    if card.patch_size < 1 or card.embed_dim < 1 or card.num_cls < 1 or card.image_size < card.patch_size:
        raise EncoderError(
            f"{name}: the card must have embed_dim, num_cls, patch_size ≥ 1 and image_size ≥ patch_size, it has "
            f"{card.embed_dim}, {card.num_cls}, {card.patch_size}, {card.image_size}"
        )


def check_types(card: EncoderCard, name: str) -> None:
    """Raises EncoderError naming the first field of the card that is of another kind than it says."""
    if not isinstance(card.weights, WeightsInfo):
        raise EncoderError(f"{name}: card.weights must be a WeightsInfo(source, sha256) (from benchmark.contracts)")
    kinds = {"int": (Integral, "a whole number"), "str": (str, "a text"), "bool": (bool, "True or False")}
    for field in fields(EncoderCard):
        kind, said = kinds.get(str(field.type), (object, ""))
        if not isinstance(value := getattr(card, field.name), kind):
            raise EncoderError(f"{name}: card.{field.name} is {value!r}, must be {said}")


def complete_card(encoder: Any, module: ModuleType, name: str, spec: ModelSpec) -> EncoderCard:
    """The card with the weights' sha256, a code version that changes with the sources, the transform and the input's
    sizes, and what was asked for.

    A builder may follow `spec.dtype` and `spec.options` and say nothing of it in the card; --gelu it has to name itself
    (`load_encoder` refuses the word otherwise). Raises EncoderError when there is nothing to tell the weights by.
    """
    card: EncoderCard = encoder.card
    held = own_modules(encoder)
    classes = {c for m in (encoder, *held.values()) for part in _parts(m) for c in type(part).__mro__}
    sizes = [int(card.image_size), int(card.patch_size)]
    made = fingerprint([sources_digest(module, classes), encoder.transform.fingerprint(), sizes])
    # The function is named, as two of one file may read one set of weights in two ways.
    version = f"{card.code_version}+{made[:12]}:{name}"
    weights = card.weights
    if not re.fullmatch("[0-9a-f]{64}", str(weights.sha256)):  # also a placeholder, which no change would change
        if not held:
            raise EncoderError(
                f"{card.name}: card.weights.sha256 is no sha256 and no torch module was found to hash. "
                "Give the sha256 of the weight file, or of what makes the numbers where there is no file"
            )
        weights = WeightsInfo(weights.source or module.__file__ or module.__name__, state_digest(encoder, held))
    asked = {k: v for k, v in spec.options.items() if k != "gelu"}
    if spec.dtype != "auto":
        asked["dtype"] = spec.dtype
    options = tuple(sorted({**asked, **dict(card.options)}.items()))
    return replace(card, code_version=version, weights=weights, options=options)


def _parts(holder: Any) -> Iterable[Any]:
    return holder.modules() if isinstance(holder, torch.nn.Module) else [holder]


def own_modules(encoder: Any) -> dict[str, torch.nn.Module]:
    """The torch modules the encoder is or holds, also in its lists and dicts, by the name of their attribute."""
    if isinstance(encoder, torch.nn.Module):
        return {"": encoder}
    return {name: value for name, value in _attributes(encoder) if isinstance(value, torch.nn.Module)}


def _attributes(encoder: Any) -> Iterable[tuple[str, Any]]:
    """Attributes by name, and the items of those that are lists, tuples or dicts."""
    for name, value in sorted(getattr(encoder, "__dict__", {}).items()):
        yield name, value
        if isinstance(value, (list, tuple)):
            yield from ((f"{name}.{i}", item) for i, item in enumerate(value))
        if isinstance(value, dict) and not (isinstance(encoder, torch.nn.Module) and name.startswith("_")):
            yield from ((f"{name}.{key}", item) for key, item in value.items())


def state_digest(encoder: Any, held: Mapping[str, torch.nn.Module]) -> str:
    """sha256 over the state of the modules it holds, and over what a state lacks: buffers that are not saved, and
    tensors and numeric arrays that are plain attributes."""
    state = module_digest(held)
    loose: dict[str, torch.Tensor | np.ndarray] = {
        name: value
        for name, value in _attributes(encoder)
        if isinstance(value, torch.Tensor) or (isinstance(value, np.ndarray) and not value.dtype.hasobject)
    }
    for prefix, module in held.items():
        saved = module.state_dict().keys()
        loose |= {f"{prefix}.{name}": value for name, value in module.named_buffers() if name not in saved}
    if not loose:
        return state
    return fingerprint([state, *(tensor_digest(name, tensor) for name, tensor in sorted(loose.items()))])


def state_now(encoder: Any) -> str:
    """sha256 over all weights that the object holds now, arrays of JAX in nested dicts and lists included."""
    found = [state_digest(encoder, own_modules(encoder))]
    todo = [(name, value) for name, value in _attributes(encoder) if not isinstance(value, torch.nn.Module)]
    while todo:
        name, value = todo.pop()
        if isinstance(value, Mapping):
            todo += [(f"{name}.{key}", item) for key, item in value.items()]
        elif isinstance(value, (list, tuple)):
            todo += [(f"{name}.{i}", item) for i, item in enumerate(value)]
        elif not isinstance(value, (torch.Tensor, np.ndarray)) and hasattr(value, "__array__"):
            found.append(tensor_digest(name, np.asarray(value)))
    return fingerprint(sorted(found))


def module_digest(modules: Mapping[str, torch.nn.Module]) -> str:
    """sha256 over names, types, shapes and bytes of the modules' states."""
    digest = hashlib.sha256()
    for prefix, module in modules.items():
        for key, tensor in sorted(module.state_dict().items()):
            add_tensor(digest, f"{prefix}.{key}", tensor)
    return digest.hexdigest()


def tensor_digest(name: str, tensor: torch.Tensor | np.ndarray) -> str:
    """sha256 over name, type, shape and bytes."""
    digest = hashlib.sha256()
    add_tensor(digest, name, tensor)
    return digest.hexdigest()


def add_tensor(digest: Any, name: str, tensor: torch.Tensor | np.ndarray) -> None:
    """Adds name, type, shape and bytes of `tensor` to a hashlib `digest`."""
    digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
    if isinstance(tensor, np.ndarray):
        digest.update(tensor.tobytes())
        return
    digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
