"""`bench publish`: sound rows leave without what is private; a request to a repository of results is checked."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from command import told
from rows import row_data, save_json, simulate, write_row, write_rows

from benchmark.errors import UsageError
from benchmark.leaderboard.collect import collect
from benchmark.rows import private
from benchmark.rows.private import cleaned
from benchmark.rows.publish import publish
from benchmark.rows.row import read_all, read_row, row_folder

EXAMPLE = Path(__file__).parents[1] / "examples" / "results_repository"
PNG = b"\x89PNG\r\n\x1a\n"


def rewritten(folder: Path, **changes: Any) -> Path:
    """The row with other entries in its result.json, "a.b" for a nested one."""
    file = folder / "result.json"
    data = json.loads(file.read_text())
    for name, value in changes.items():
        *above, last = name.split("__")
        inside = data
        for part in above:
            inside = inside[part]
        inside[last] = value
    file.write_text(json.dumps(data))
    return folder


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("bench run --weights /home/me/secret/a.pt --limit 3", "bench run --weights …/a.pt --limit 3"),
        ("bench run --model=/mnt/x/enc.py:build", "bench run --model=…/enc.py:build"),
        ("bench run --data /scratch --seed 1", "bench run --data …/scratch --seed 1"),
        ("--weights '~/w/a.pt' ~bob/b.pt ../up/c.pt", "--weights '…/a.pt' …/b.pt …/c.pt"),
        ("C:\\Users\\me\\w.npz and \\\\server\\share\\w.npz and D:/w/x", "…/w.npz and …/w.npz and …/x"),
        ("file:///srv/data/x.parquet", "…/x.parquet"),
        ("me@lab.example.org on gpu-7.cluster.local at 10.1.2.3 hf_abcdefghijklmnopqrst", "… on … at … …"),
        ("https://huggingface.co/google/tipsv2 example/model@1a2b3c 1/224 and/or torch 2.13.0+cpu", None),
        ("hf:org/model, timm:vit_base.x, ade20k/val, 0.5°/px, versions 10.0.1", None),
    ],
)  # fmt: skip
def test_private_words_go_and_nothing_else(text: str, shown: str | None) -> None:
    assert private.cleaned(text, command=True) == (text if shown is None else shown)


def test_the_name_of_this_machine_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "node17.example.org")
    assert private.cleaned("made on node17, by node17.example.org; anode17b") == "made on …, by …; anode17b"
    monkeypatch.setattr(socket, "gethostname", lambda: "vit")
    assert private.cleaned("a vit") == "a vit"  # too short to be told from a word


def test_a_row_leaves_whole_but_for_what_is_private(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, to = tmp_path / "results", tmp_path / "to"
    folder = rewritten(
        write_row(results, "mini", "depth"),
        command="bench run --weights /home/me/a.pt", model__weights={"source": "/home/me/a.pt", "sha256": "ab" * 32},
        environment__MyHost="n17", environment__nodelist="n17", details={"note": "read from /data/me/x.h5"}, n_bad=2,
        bad=["/data/me/000.png: truncated"],
    )  # fmt: skip
    (folder / "pictures").mkdir()
    (folder / "pictures" / "worst-1_RMSE-0.9_a.png").write_bytes(PNG)
    code, out, _ = told(capsys, "publish", str(results), "--to", str(to))
    assert code == 0 and "1 row in" in out and "(1 new), 0 refused" in out and "2 pictures left out: mini/" in out
    (made,), problems = read_all(to)
    before = read_row(folder).data
    text = (made.folder / "result.json").read_text()
    assert not problems and not any(word in text for word in ("/home", "/data", "n17", str(tmp_path)))
    assert (made.data.command, made.data.model.weights.source) == ("bench run --weights …/a.pt", "…/a.pt")
    for name in ("metrics", "protocol", "task", "seed", "id", "created", "samples_sha256", "timing"):
        assert getattr(made.data, name) == getattr(before, name), name
    assert made.data.model.weights.sha256 == "ab" * 32 and made.has_its_samples()
    assert sorted(p.name for p in made.folder.iterdir()) == ["result.json", "samples.parquet"]
    assert len(collect(to)[0][0].entries) == 1
    assert (
        "removed, in command, model.weights.source, details.note, bad, environment.MyHost, environment.nodelist: mini/"
        in out
    )
    publish(results, to, pictures=True)
    assert (made.folder / "pictures" / "worst-1_RMSE-0.9_a.png").read_bytes() == PNG
    publish(results, to, samples=False)
    assert sorted(p.name for p in made.folder.iterdir()) == ["result.json"]


def forged(row: Path, **changes: Any) -> str:
    rewritten(row, **changes)
    (line,) = publish(row.parents[3], None).refused
    return line


def test_a_row_that_is_not_what_it_says_is_refused(tmp_path: Path) -> None:
    def row() -> Path:
        shutil.rmtree(tmp_path / "r", ignore_errors=True)
        return write_row(tmp_path / "r", "mini", "depth")

    metrics = json.loads((row() / "result.json").read_text())["metrics"]
    metrics["RMSE"]["value"] *= 0.9
    assert "RMSE is" in forged(row(), metrics=metrics)
    assert "lies at mini/depth/scenes" in forged(row(), model__name="maxi")
    fields = json.loads((row() / "result.json").read_text())["protocol"]["fields"]
    changed = forged(
        row(), protocol__fields={**fields, "view_size": {**fields["view_size"], "value": 7}}, protocol__schema="x"
    )
    assert "hash is not that of its fields" in changed
    assert "schema 99 is newer" in forged(row(), schema=99)
    assert "private paths or names in command" in forged(row(), command="bench run --data /home/me/d")
    broken = row() / "samples.parquet"
    broken.write_bytes(broken.read_bytes()[:-9])
    assert "samples.parquet: cannot be read" in publish(tmp_path / "r", None).refused[0]
    (row() / "result.json").unlink()
    assert "half-written" in publish(tmp_path / "r", None).refused[0]


def test_samples_with_private_names_are_refused(tmp_path: Path) -> None:
    outcome = simulate("depth", 0.6, 30, "mini")
    outcome.samples = {**outcome.samples, "id": np.array([f"/home/me/photos/{i}.jpg" for i in range(30)])}
    data = row_data("mini", "depth", outcome)
    save_json(
        row_folder(tmp_path / "r", "mini", "depth", "scenes", "fast", data["protocol"]["hash"]), data, outcome.samples
    )
    assert "samples hold a private path" in publish(tmp_path / "r", tmp_path / "to").refused[0]
    assert not (tmp_path / "to").exists()


def test_sound_rows_go_though_others_are_refused_and_the_command_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "r", {"good": 0.6, "bad": 0.5}, ["depth"])
    next((tmp_path / "r" / "bad").rglob("result.json")).write_text("{")
    code, out, err = told(capsys, "publish", str(tmp_path / "r"), "--to", str(tmp_path / "to"))
    assert code == 1 and "1 row in" in out and "1 refused" in out and "/bad/" in err
    assert [row.model for row in read_all(tmp_path / "to")[0]] == ["good"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "takes --to FOLDER, or --check"),
        (["--to", "x", "--check"], "takes --to FOLDER, or --check"),
        (["--to", "results/inside"], "lies in"),
        (["--check", "--accepted", "nowhere"], "--accepted nowhere: no such folder"),
    ],
)
def test_wrong_words_are_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("results").mkdir()
    code, _, err = told(capsys, "publish", "results", *words)
    assert code == 2 and message in err and err.count("\n") == 1
    with pytest.raises(UsageError, match="no row to publish"):
        publish(Path("results"), Path("elsewhere"))


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main")
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Rows of two models on `main`, and a branch where one is better, one untouched, and a third one new and stale."""
    home = tmp_path / "home"
    home.mkdir()
    git(home, "init", "-q")
    shutil.copy(EXAMPLE / "check.sh", home)
    publish_to(home, tmp_path / "first", {"better": 0.5, "same": 0.6})
    git(home, "add", ".")
    git(home, "commit", "-qm", "rows")
    git(home, "checkout", "-qb", "request")
    publish_to(home, tmp_path / "second", {"better": 0.7, "new": 0.4})
    git(home, "add", ".")
    git(home, "commit", "-qm", "more rows")
    git(home, "worktree", "add", "-q", str(tmp_path / "accepted"), "main")
    home.rename(tmp_path / "request")
    return tmp_path


def publish_to(home: Path, rows: Path, skills: dict[str, float]) -> None:
    write_rows(rows, skills, ["depth", "linear_segmentation"], n=60)
    if "new" in skills:
        for file in (rows / "new").rglob("result.json"):
            rewritten(file.parent, model__code={"adapters.clip": "1"})
    assert not publish(rows, home / "rows").refused


def checked(repository: Path) -> tuple[int, str]:
    """The workflow's own command, run where its steps put things."""
    steps = yaml.safe_load((EXAMPLE / "github.yml").read_text())["jobs"]["check"]["steps"]
    (command,) = [step["run"] for step in steps if step.get("name") == "Check"]
    (repository / "bin").mkdir(exist_ok=True)
    shim = repository / "bin" / "bench"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m benchmark.cli "$@"\n')
    shim.chmod(0o755)
    env = {**os.environ, "PATH": f"{shim.parent}:{os.environ['PATH']}", "PYTHONPATH": str(EXAMPLE.parents[1])}
    done = subprocess.run(["sh", "-c", command], cwd=repository, env=env, capture_output=True, text=True)
    return done.returncode, (repository / "comment.md").read_text(encoding="utf-8")


def test_the_workflow_accepts_a_sound_request_and_pairs_it(repository: Path) -> None:
    code, comment = checked(repository)
    assert code == 0 and comment.startswith("## 6 rows, 2 of them as accepted, 0 refused")
    assert (
        "| better | depth/scenes | fast-" in comment
        and "changed: RMSE" in comment
        and "| new | depth/scenes |" in comment
    )
    assert "| same |" not in comment and "stale: adapters.clip is version" in comment
    assert "better → better: 2 better" in comment and "▲ better" in comment and comment.count("adjusted p") >= 1


def test_the_workflow_refuses_what_is_not_sound_and_names_what_is_gone(repository: Path) -> None:
    shutil.rmtree(repository / "request" / "rows" / "same")
    for side in ("accepted", "request"):
        shutil.rmtree(repository / side / "rows" / "better")
    row = next((repository / "request" / "rows" / "new").rglob("result.json")).parent
    rewritten(row, command="bench run --data /home/me/data")
    code, comment = checked(repository)
    assert code == 1 and "1 refused" in comment.splitlines()[0] and "agree with its checksum" in comment
    assert "accepted, and gone here: same/depth" in comment


def test_names_of_measures_are_no_addresses() -> None:
    for name in ("PCK@0.1 per image", "hit@0.1", "R@1", "mP@5"):
        assert cleaned(name) == name
    checkpoints = ("tipsv2-b@run1-model.safetensors-6e2cac", "b@exp.lr1e-3-best-6e2cac", "b@run.best-6e2cac")
    for name in (*checkpoints, "10.0.0.1.png", "img@host.jpg", "photo@2x.example.png"):
        assert cleaned(name) == name
    assert cleaned("ask me@lab.example") == "ask …" and cleaned("me@lab.example.org, 10.0.0.1") == "…, …"
