"""Options that several commands take, each declared once: one word, one meaning, one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from benchmark.errors import UsageError

Models = Annotated[
    list[str] | None,
    Option("--model", "-m", help="A name of bench ls models, hf:…, timm:…, open_clip:…, file.py:function; repeats"),
]
Tasks = Annotated[
    list[str] | None,
    Option("--task", "-t", help="task/dataset, a dataset, a task, a TOML file, mmseg:FILE.py (which is run); repeats"),
]
Suite = Annotated[str | None, Option(help="A name of bench ls suites, or a TOML file")]
Protocol = Annotated[str | None, Option(help="A preset: fast, paper, … [default: the suite's, else fast]")]
Name = Annotated[str | None, Option(help="What rows call the model [default: its name, or its file's with six digits]")]
Set = Annotated[list[str] | None, Option("--set", help="Change a protocol field: field=value or task.field=value")]
Weights = Annotated[str | None, Option(help="A local checkpoint, for one --model")]
Checkpoints = Annotated[str | None, Option("--weights", help="A local checkpoint, or 'runs/*/step-*', for one --model")]
Gpus = Annotated[int | None, Option(help="At most so many GPUs, or cores where there are none [default: all]")]
Backend = Annotated[str, Option(help="torch or jax")]
Gelu = Annotated[str | None, Option(help="tanh or erf, for TIPS [default: what each official code does]")]
Positions = Annotated[
    str | None, Option(help="authors, or the library (transformers, timm): who resamples positions [default: authors]")
]
Compile = Annotated[bool, Option("--compile", help="torch.compile the image tower")]
Device = Annotated[str, Option(help="auto, cpu, cuda, cuda:N")]
Dtype = Annotated[str, Option(help="auto, float32, bfloat16, float16")]
BatchSize = Annotated[str, Option(help="auto halves when memory runs out, or a number")]
Limit = Annotated[int | None, Option(help="At most this many samples of each split; its own rows")]
Data = Annotated[Path | None, Option(help="Where datasets lie [default: $BENCH_DATA or ./data]")]
Results = Annotated[Path | None, Option(help="Where rows are [default: $BENCH_RESULTS or ./results]")]
Store = Annotated[str, Option(help="How dense features are kept: float16, float32, int8")]
Offline = Annotated[bool, Option("--offline", help="No network at all")]
TrustRemoteCode = Annotated[bool, Option("--trust-remote-code", help="Allow code from a hub repository to run")]
Seed = Annotated[int, Option(help="Seed of pixel sampling, hold-out and bootstrap")]
Workers = Annotated[int | None, Option(help="Processes that decode images [default: chosen]")]
MaxBad = Annotated[int, Option(help="Allow so many unreadable images; the row lists them")]
SavePredictions = Annotated[
    int, Option(help="Keep pictures of the best, median and worst N predictions; makes a row again that has fewer")
]
SaveHeads = Annotated[
    bool, Option("--save-heads", help="Keep trained heads beside their rows, for bench look --head FILE PICTURE")
]
CrossCheck = Annotated[bool, Option("--cross-check", help="Compute mIoU a second time with mmsegmentation's IoUMetric")]
Force = Annotated[bool, Option("--force", help="Make rows again that are already there")]
NoCheck = Annotated[bool, Option("--no-check", help="Skip the conformance check of a new model")]
Json = Annotated[bool, Option("--json", help="JSON on standard output, and nothing else there")]
Markdown = Annotated[Path | None, Option(help="Also write Markdown here")]


def refuse_no_png(option: str, file: Path | None) -> None:
    """Raises UsageError where `option` names a file of another kind for what is drawn as a PNG."""
    if file is not None and file.suffix.lower() not in ("", ".png"):
        raise UsageError(f"{option} {file}: what is drawn is a PNG. Name it {file.with_suffix('.png')}")
