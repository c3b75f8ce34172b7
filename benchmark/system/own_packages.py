"""`tasks` and `adapters` are names that a project of one's own, or a package of others, may have, too."""

from __future__ import annotations

import importlib
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from benchmark.errors import UsageError, first_line

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("adapters", "tasks")


@cache
def ours(name: str) -> None:
    """Sees to it that `name` is densebench's package.

    Where another one would be found first, ours comes first on `sys.path` from here on, in worker processes too. Raises
    UsageError, saying whose it is, where another one was imported before, or was installed over ours.
    """
    if name not in sys.modules:
        spec = find_spec(name)
        if spec is None or spec.origin is None or Path(spec.origin).resolve().parent != ROOT / name:
            sys.path.insert(0, str(ROOT))
            importlib.invalidate_caches()
    try:
        found = importlib.import_module(name)
    except Exception as e:  # code of others may raise anything
        raise UsageError(_line(name, str(ROOT / name), f" and cannot be imported ({first_line(e)})")) from None
    if getattr(found, "PACKAGE_OF", None) != "densebench":
        place = getattr(found, "__file__", None) or ", ".join(getattr(found, "__path__", ["built in"]))
        raise UsageError(_line(name, place))


def _line(name: str, place: str, more: str = "") -> str:
    return (
        f"the package {name!r} of this process is {place}, which is not densebench's{more}. Rename it, or use "
        "densebench where it is not imported: by the command bench, or in an environment without it"
    )
