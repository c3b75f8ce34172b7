"""`torch` and `torch.nn.functional` that are imported at their first use.

Modules on the way of every command take them from here, so that one that computes nothing (rows that are there, tables,
names) does not wait for two seconds of import.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = ["F", "torch"]


class _Late(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by whoever looks through modules, doctest or inspect
            raise AttributeError(name)
        real = vars(self).get("real") or vars(self).setdefault("real", importlib.import_module(self.__name__))
        return getattr(real, name)


if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
else:
    torch = _Late("torch")
    F = _Late("torch.nn.functional")
