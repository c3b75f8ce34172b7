"""One self-contained page: template, style, chart library, scripts and data in a file that opens from disk."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from benchmark.system.escaping import MARKS, visible

# In the order they need one another.
SCRIPTS = (
    "format.js", "dom.js", "store.js", "table.js", "overview.js", "boards.js", "charts.js", "cost.js", "classes.js",
    "samples.js", "protocols.js", "published.js", "sensitivity.js", "details.js", "address.js", "copy.js", "app.js",
)  # fmt: skip
CHARTS = "chart.umd.min.js"


def page(data: Mapping[str, Any]) -> str:
    """The HTML. It allows itself its own scripts by their hash and nothing else: no network, no inline handlers."""
    charts = (_assets() / "vendor" / CHARTS).read_text(encoding="utf-8")
    scripts = "\n".join((_assets() / name).read_text(encoding="utf-8") for name in SCRIPTS)
    scripts = f'(() => {{\n"use strict";\n{scripts}\n}})();\n'
    parts = {
        "@@POLICY@@": _policy(charts, scripts),
        "@@STYLE@@": (_assets() / "style.css").read_text(encoding="utf-8"),
        "@@CHARTS@@": charts,
        "@@SCRIPTS@@": scripts,
        "@@DATA@@": embedded_json(data),
    }
    out: str = (_assets() / "page.html").read_text(encoding="utf-8")
    for mark, text in parts.items():
        before, _, after = out.partition(mark)
        out = before + text + after
    return out


def _assets() -> Any:
    return files("benchmark.leaderboard") / "assets"


def embedded_json(data: Mapping[str, Any]) -> str:
    """JSON that no browser can read as markup: `<`, `>` and `&` are escapes, hidden marks are spelled out."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text = MARKS.sub(lambda found: json.dumps(visible(found[0]))[1:-1], text)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _policy(*scripts: str) -> str:
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(s.encode('utf-8')).digest()).decode('ascii')}'" for s in scripts
    )
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:"
