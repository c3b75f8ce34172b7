"""The record of a run: metrics.jsonl, a loss plot, and lines with images/s and ETA."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark.errors import DataError
from benchmark.system.files import write_bytes, write_text


class Journal:
    """Appends one JSON line per reading; after a resume the file is what it was at the checkpoint, whose own copy
    `kept` is.

    A checkpoint of before there were copies: readings past it are dropped, and a last line that a full disk or a kill
    cut short. DataError for any other damaged line. Of several processes the `first` alone touches the file.
    """

    def __init__(
        self,
        folder: Path,
        steps: int,
        batch_size: int,
        start: int,
        quiet: bool = False,
        first: bool = True,
        kept: Path | None = None,
    ) -> None:
        self.path, self.steps, self.batch_size, self.quiet = folder / "metrics.jsonl", steps, batch_size, quiet
        self._since, self._step = time.perf_counter(), start
        if first and kept:
            write_bytes(self.path, kept.read_bytes())
        elif first and self.path.is_file() and not start:
            self.path.unlink()
        elif first and self.path.is_file():
            rows = [json.dumps(row) + "\n" for row in _readings(self.path) if row["step"] <= start]
            write_text(self.path, "".join(rows))

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes the reading after `step` steps, and prints it with the speed since the last one."""
        now = time.perf_counter()
        speed = (step - self._step) * self.batch_size / max(now - self._since, 1e-9)
        self._since, self._step = now, step
        row = {"step": step, **values, "images_per_s": round(speed, 1)}
        self.note(row)
        if not self.quiet:
            left = (self.steps - step) * self.batch_size / max(speed, 1e-9)
            shown = "  ".join(f"{k} {v:.4g}" for k, v in values.items())
            print(f"step {step}/{self.steps}  {shown}  {speed:.0f} images/s  ETA {_clock(left)}", flush=True)

    def note(self, row: Mapping[str, Any]) -> None:
        """Writes one line as it is; `row` holds "step"."""
        with open(self.path, "a", encoding="utf-8") as f:
            f.write(json.dumps(dict(row)) + "\n")

    def plot(self) -> Path | None:
        """losses.png beside the metrics; None when there is nothing to draw."""
        rows = _readings(self.path) if self.path.is_file() else []
        names = [n for n in ("loss", "contrastive", "dino", "patch") if any(n in r for r in rows)]
        if not names:
            return None
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot()
        for name in names:
            axes.plot([r["step"] for r in rows if name in r], [r[name] for r in rows if name in r], label=name)
        axes.set(xlabel="step", ylabel="loss (nats)")
        axes.legend(frameon=False)
        target = self.path.with_name("losses.png")
        figure.savefig(target, dpi=120)
        return target


def _readings(path: Path) -> list[dict[str, Any]]:
    lines, rows = path.read_text(encoding="utf-8", errors="replace").splitlines(), []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise DataError(f"{path}: line {number} is no JSON ({error}). Remove that line to resume") from None
    return rows


def _clock(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{s:02d}"
