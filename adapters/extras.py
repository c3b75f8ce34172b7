"""Optional packages: the install line when one is missing, a plain line when torchvision breaks it."""

from __future__ import annotations

import importlib
from types import ModuleType

from benchmark.errors import MissingExtra, UsageError, first_line
from benchmark.system.torchvision_fit import misfit, remedy


def import_extra(module: str, extra: str, feature: str) -> ModuleType:
    """The module. Raises MissingExtra when it is not installed, UsageError when torchvision stops its import."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == module:
            raise MissingExtra(feature, extra) from None
        if error.name and error.name.startswith("torchvision"):
            raise UsageError(torchvision_line(feature, module, f"it is not installed. Run: {remedy()}")) from None
        raise MissingExtra(feature, extra, f"{module} needs {error.name}") from None
    except (ImportError, RuntimeError, AttributeError) as error:
        line = misfit(error) or f"{first_line(error)}. Run: {remedy()}"
        raise UsageError(torchvision_line(feature, module, line)) from None


def torchvision_line(feature: str, module: str, line: str) -> str:
    """What is said where `feature` needs torchvision, which `line` says is in the way."""
    return f"{feature} needs {module}, which needs torchvision, and that cannot be imported here: {line}"
