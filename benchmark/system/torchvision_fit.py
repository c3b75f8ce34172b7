"""A torchvision built for another torch: it stops transformers, timm and open_clip, each with words of its own."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version

from benchmark.errors import first_line

FIRST_MINOR = 15  # torchvision 0.15 is torch 2.0's; since then both rise together, in the last number as well


def remedy() -> str:
    """The command that installs the torchvision of the installed torch, from the index its build came from."""
    number, _, build = version("torch").partition("+")
    _, minor, patch = (*number.split("."), "0", "0")[:3]
    index = f" --index-url https://download.pytorch.org/whl/{build}" if build else ""
    return f"pip install --force-reinstall --no-deps torchvision==0.{int(minor) + FIRST_MINOR}.{patch}{index}"


def misfit(error: BaseException | None) -> str | None:
    """One line with both versions and the remedy where `error` comes of a torchvision that cannot be imported."""
    seen: list[str] = []
    while error is not None:
        seen.append(first_line(error))
        error = error.__cause__ or error.__context__
    reason = next((words for words in reversed(seen) if "torchvision" in words), None)  # the first of them
    if reason is None:
        return None
    try:
        installed = version("torchvision")
        importlib.import_module("torchvision")
    except PackageNotFoundError:
        return None
    except Exception:  # a library of another torch's binaries raises anything, and another thing the second time
        return f"torchvision {installed} does not fit torch {version('torch')} ({reason[:120]}). Run: {remedy()}"
    return None
