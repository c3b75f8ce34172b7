"""Runs the cells of first_look.py and writes first_look.ipynb with what they gave: python examples/notebook/make.py

Cells are parted by `# %%`. Nothing of Jupyter is needed: the format is a JSON file, and what a cell ends with shows
itself by the same methods (`_repr_html_`, `_repr_png_`) that a notebook asks.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("first_look.py")
SHOWN = {"_repr_html_": "text/html", "_repr_png_": "image/png"}


def cells(text: str) -> list[tuple[str, str]]:
    """(markdown or code, source) of each cell."""
    parts = re.split(r"^# %%(.*)\n", text, flags=re.M)[1:]
    out = []
    for head, body in zip(parts[::2], parts[1::2]):
        body = body.strip("\n")
        marked = "[markdown]" in head
        out.append(("markdown" if marked else "code", re.sub(r"^# ?", "", body, flags=re.M) if marked else body))
    return out


def executed(source: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    """The outputs of a cell: what it prints, and what its last expression shows."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)  # type: ignore[attr-defined]
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": lines(printed.getvalue())})
    if value is not None:
        data: dict[str, Any] = {"text/plain": lines(repr(value))}
        for method, kind in SHOWN.items():
            if (found := getattr(value, method, lambda: None)()) is not None:
                data[kind] = lines(found) if isinstance(found, str) else base64.b64encode(found).decode()
        outputs.append({"output_type": "execute_result", "execution_count": None, "data": data, "metadata": {}})
    return outputs


def lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def notebook(text: str) -> dict[str, Any]:
    """The notebook of these cells, run from the first to the last in one namespace."""
    names: dict[str, Any] = {"__name__": "__main__"}
    out: list[dict[str, Any]] = []
    for number, (kind, source) in enumerate(cells(text)):
        cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": lines(source)}
        if kind == "code":
            count = sum(one["cell_type"] == "code" for one in out) + 1
            cell |= {"execution_count": count, "outputs": executed(source, names)}
            for output in cell["outputs"]:
                if "execution_count" in output:
                    output["execution_count"] = count
        out.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    meta = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": out, "metadata": meta, "nbformat": 4, "nbformat_minor": 5}


if __name__ == "__main__":
    made = notebook(SOURCE.read_text(encoding="utf-8"))
    SOURCE.with_suffix(".ipynb").write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(SOURCE.with_suffix(".ipynb"))
