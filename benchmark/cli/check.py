"""`bench check`: does an encoder keep its contract?"""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from benchmark.cli import options as o
from benchmark.contracts import Encoder, LabelData
from benchmark.engine.loading import device_of, open_encoder
from benchmark.errors import BenchError, UsageError
from benchmark.registry import models, open_dataset

if TYPE_CHECKING:
    from benchmark.check import CheckReport
    from benchmark.engine.suites import Choice


def check(
    model: Annotated[list[str], typer.Option("--model", "-m", help="As for bench run; repeats")],
    task: o.Tasks = None,
    suite: o.Suite = None,
    data: o.Data = None,
    weights: o.Weights = None,
    backend: o.Backend = "torch",
    device: o.Device = "auto",
    dtype: o.Dtype = "auto",
    gelu: o.Gelu = None,
    positions: o.Positions = None,
    compile_: o.Compile = False,
    offline: o.Offline = False,
    cheap: Annotated[bool, typer.Option("--cheap", help="Only what bench run checks by itself")] = False,
    trust_remote_code: o.TrustRemoteCode = False,
    golden: Annotated[Path | None, typer.Option(help="The author's features of a picture and a text")] = None,
    write_golden: Annotated[Path | None, typer.Option(help="Write such a file, .safetensors, from this model")] = None,
    json: o.Json = False,
) -> None:
    """Check in seconds whether an adapter is right.

    Shapes, orientation, layers, batch and padding invariance, sizes, number types, chance. Exits 1 when one is off.
    Example: bench check --model my_encoder.py:build --task my_task.toml --golden golden.safetensors
    """
    from benchmark.check import check_encoder
    from benchmark.check.golden import read_golden, write_golden_of
    from benchmark.cli.run import model_options

    if write_golden is not None and len(model) > 1:
        raise UsageError("--write-golden writes the features of one model. Give one --model")
    features = None if golden is None else read_golden(golden)
    options = model_options(gelu, positions, compile_)
    chosen = _chosen(task or (), suite)

    def load(name: str, kind: str) -> Encoder:
        return open_encoder(
            name, weights=weights, backend=backend, device=device, dtype=kind, offline=offline,
            trust_remote_code=trust_remote_code, options=options,
        )  # fmt: skip

    failures = 0
    for name in model:
        encoder = load(name, dtype)
        report = check_encoder(
            encoder,
            cheap=cheap,
            device=device_of(encoder, device),
            # A floor is float32 whatever --dtype says.
            reload=None if is_floor(name) else lambda kind, name=name: load(name, kind),  # type: ignore[misc]
            labelled=None if cheap else scenes(),
            golden=models().get(name, {}).get("golden_tokens"),
            features=features,
        )
        if chosen and report.ok:  # else each task would only say the same again
            from benchmark.engine.options import RunOptions
            from benchmark.engine.trial import trial
            from benchmark.system.paths import data_dir

            report.findings += trial(encoder, chosen, RunOptions(device=device, data=data or data_dir()))
        failures += not report.ok
        show(report, json)
        if write_golden is not None and report.ok:
            write_golden_of(encoder, device_of(encoder, device), write_golden)
            typer.echo(f"{write_golden}: golden features of {name}", err=json)
    if failures:
        raise typer.Exit(1)


def _chosen(words: Sequence[str], suite: str | None) -> Choice | None:
    if not words and suite is None:
        return None
    from benchmark.engine.suites import choose

    return choose(words, suite)


def is_floor(name: str) -> bool:
    """Whether the model is one that everything else should beat: it has no fault to find."""
    return bool(models().get(name, {}).get("family") == "floors")


def scenes() -> LabelData | None:
    """The embedded pictures with one label each; None where they cannot be rendered."""
    try:
        return cast("LabelData", open_dataset("scenes", None).data("labels", "test"))
    except BenchError:
        return None


def show(report: CheckReport, json: bool) -> None:
    """Prints the findings as a table, or as JSON lines."""
    if json:
        for finding in report.findings:
            typer.echo(jsonlib.dumps({"model": report.model, **asdict(finding)}, ensure_ascii=False))
        return
    from benchmark.cli.tables import plain_table

    rows = [("ok" if f.ok else "FAILED", f.name, f.value, f.detail) for f in report.findings]
    plain_table(("", "check", "found", "what to do"), rows)
    wrong = sum(not f.ok for f in report.findings)
    verdict = f"{wrong} of {len(rows)} checks failed" if wrong else f"all {len(rows)} checks passed"
    typer.echo(f"{report.model}: {verdict} in {report.seconds:.1f} s")
