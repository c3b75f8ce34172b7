"""`bench cache`: what is stored, and making room."""

from __future__ import annotations

import json as jsonlib
import re
import time
from typing import Annotated

import typer

from benchmark.errors import UsageError

app = typer.Typer(
    help="What can be made again: list it, make room. Example: bench cache prune --max-size 20GB",
    rich_markup_mode=None,
    add_completion=False,
)
UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


@app.command()
def ls(json: Annotated[bool, typer.Option("--json", help="One JSON object per line")] = False) -> None:
    """List what is stored, with size and time of last use. Example: bench cache ls"""
    from benchmark.features.cache import other_entries
    from benchmark.features.store import FeatureStore
    from benchmark.system.paths import cache_dir

    root = cache_dir()
    entries = FeatureStore(root / "features").entries()
    others = other_entries(root)
    if json:
        for e in [*entries, *others]:
            typer.echo(jsonlib.dumps({**e, "folder": str(e["folder"])}))
        return
    from benchmark.cli.ls import columns

    lines = []
    for e in sorted(entries, key=lambda e: -e["bytes"]):
        tap = e["key"].get("tap", {"name": "text"})
        whole = "yes" if e["shards"] == e["of"] else f"{e['shards']}/{e['of']} shards"
        lines.append([e["key"].get("model"), tap["name"], e["codec"], human(e["bytes"]), whole, age(e["used"])])
    typer.echo(columns(["model", "tap", "codec", "size", "whole", "last used"], lines))
    if others:
        lines = [[e["kind"], e["folder"].name, human(e["bytes"]), age(e["used"])] for e in others]
        typer.echo("\n" + columns(["beside them", "folder", "size", "last used"], lines))
    arrays, beside = (human(sum(e["bytes"] for e in some)) for some in (entries, others))
    typer.echo(f"{len(entries)} arrays, {arrays}, and beside them {beside} in {root}")


@app.command()
def prune(
    older_than: Annotated[str | None, typer.Option(help="Unused for longer than this: 12h, 30d")] = None,
    max_size: Annotated[
        str | None, typer.Option(help="Keep at most this much, dropping the least recently used: 20GB")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Only this model's")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Everything")] = False,
) -> None:
    """Delete what is made again when needed, never what a running process uses.

    Example: bench cache prune --older-than 30d
    """
    from benchmark.features.cache import other_entries
    from benchmark.features.store import FeatureStore
    from benchmark.system.paths import cache_dir

    if not all_ and older_than is None and max_size is None and model is None:
        raise UsageError("say what to delete: --older-than 30d, --max-size 20GB, --model NAME, or --all")
    store = FeatureStore(cache_dir() / "features")
    freed = store.prune(
        older_than_s=None if older_than is None else parse_age(older_than),
        max_bytes=None if max_size is None else parse_size(max_size),
        model=model,
        others=other_entries(store.root.parent),
    )
    typer.echo(f"{human(freed)} freed in {store.root.parent}")


def parse_age(text: str) -> float:
    """Seconds of `90s`, `30m`, `12h`, `30d`. Raises UsageError for anything else."""
    found = re.fullmatch(r"(\d+)([smhd])", text)
    if not found:
        raise UsageError(f"--older-than {text!r}: must be a number with s, m, h or d, like 30d")
    return int(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


def parse_size(text: str) -> int:
    """Bytes of `500MB`, `20GB`. Raises UsageError for anything else."""
    found = re.fullmatch(r"(\d+)\s*([a-z]*)", text.lower())
    if not found or found[2] not in UNITS:
        raise UsageError(f"--max-size {text!r}: must be a size like 500MB or 20GB")
    return int(found[1]) * UNITS[found[2]]


def human(size: float) -> str:
    """`1.5 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def age(then: float) -> str:
    """`5 min ago`."""
    seconds = max(0.0, time.time() - then)
    for step, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= step:
            return f"{seconds / step:.0f} {name} ago"
    return "now"
