"""The source files that an encoder of the user's own is made of, so that an edit of any of them is another version.

Followed are the imports written in the file, also those inside functions, and the modules that define the classes of
the networks it holds. The standard library, installed packages and densebench itself are left out. What is followed
depends on these files alone, never on what else this process has loaded.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from benchmark.system import digest
from benchmark.system.digest import fingerprint, sha256_file

INSTALLED = {"site-packages", "dist-packages"}
FOREIGN = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")]
FOREIGN += [Path(digest.__file__).resolve().parent.with_name(name) for name in ("benchmark", "adapters", "tasks")]
_loaded: dict[int, tuple[ModuleSpec, str]] = {}  # sha256 of modules in memory, which a later edit does not change


def sources_digest(module: ModuleType, classes: Iterable[type]) -> str:
    """sha256 over the names and contents of the own files behind `module` and the modules that define `classes`.

    `module` and its package count as the user's own wherever they lie.
    """
    first = module.__spec__
    top = module.__name__.partition(".")[0]
    todo = [first, *(_find(name) for name in {c.__module__ for c in classes})]
    files: dict[str, tuple[str, str]] = {}  # module -> file name, sha256
    seen: set[str] = set()
    while todo:
        spec = todo.pop()
        if spec is None or spec.name in seen:
            continue
        seen.add(spec.name)
        if spec.has_location and spec.origin and (spec.name.partition(".")[0] == top or not _foreign(spec.origin)):
            files[spec.name] = (Path(spec.origin).name, _sha256(spec, spec.origin))
            todo += [_find(name) for name in _imports(Path(spec.origin), spec.parent or "")]
    return fingerprint(sorted(files.values()))


def _find(name: str) -> ModuleSpec | None:
    """Where a module is, without importing anything; None when it is not to be found."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:
        return None
    if name in sys.modules:
        return getattr(sys.modules[name], "__spec__", None)
    try:
        if top == name:
            return importlib.util.find_spec(name)
        above = _find(name.rpartition(".")[0])
        places = None if above is None else above.submodule_search_locations
        return None if places is None else PathFinder.find_spec(name, places)
    except (ImportError, ValueError, AttributeError):
        return None


def _foreign(origin: str) -> bool:
    path = Path(origin).resolve()
    return bool(INSTALLED & set(path.parts)) or any(path.is_relative_to(folder) for folder in FOREIGN)


def _sha256(spec: ModuleSpec, origin: str) -> str:
    """Of a loaded module, what its file held when it was first asked for; a file that is run anew has a new spec."""
    if getattr(sys.modules.get(spec.name), "__spec__", None) is not spec:
        return sha256_file(origin)
    if id(spec) not in _loaded:
        _loaded[id(spec)] = (spec, sha256_file(origin))
    return _loaded[id(spec)][1]


def _imports(file: Path, package: str) -> Iterator[str]:
    """Every module that `file` may import, and the packages above each: those run first."""
    if file.suffix != ".py":
        return
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:length]) for length in range(1, len(parts) + 1))
