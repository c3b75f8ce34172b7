"""A torchvision built for another torch: one line with both versions and the command, whatever it stops."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version

import pytest

from benchmark.cli.commands import _explain
from benchmark.system import torchvision_fit
from benchmark.system.torchvision_fit import misfit, remedy

# What torchvision 0.24.1 does beside torch 2.13; transformers then says that it cannot import its own classes.
BROKEN = "raise RuntimeError('operator torchvision::nms does not exist')\n"
METADATA = "Metadata-Version: 2.1\nName: torchvision\nVersion: 0.11.2\nRequires-Dist: torch (==1.10.1)\n"


@pytest.fixture
def elsewhere(tmp_path):
    """An environment in which a torchvision of another torch is found first."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(BROKEN)
    (tmp_path / "torchvision-0.11.2.dist-info").mkdir()
    (tmp_path / "torchvision-0.11.2.dist-info" / "METADATA").write_text(METADATA)
    path = os.pathsep.join([str(tmp_path), os.getcwd(), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "BENCH_RESULTS": str(tmp_path / "results")}


COMMANDS = (
    ["run", "--model", "clip-mini", "--task", "classification/scenes"],
    ["check", "--model", "tipsv2-mini"],
    ["check", "--model", "hf:clip"],
)
EACH_IN_A_FORK = """
import os, sys
import torch
from benchmark.cli import main
assert "transformers" not in sys.modules and "jax" not in sys.modules
for number, words in enumerate({commands}):
    if not os.fork():
        os.dup2(os.open(f"{{number}}.txt", os.O_WRONLY | os.O_CREAT), 1)
        os.dup2(1, 2)
        main(words)
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_commands_name_both_versions_and_the_command(elsewhere, tmp_path):
    from family_models import save_clip

    save_clip(
        tmp_path / "clip", hidden_size=48, num_attention_heads=4, intermediate_size=96, image_size=64, patch_size=16
    )
    code = EACH_IN_A_FORK.format(commands=COMMANDS)
    done = subprocess.run([sys.executable, "-c", code], env=elsewhere, cwd=tmp_path, capture_output=True, text=True)
    assert len(codes := done.stdout.split()) == len(COMMANDS) and {*codes} <= {"1", "2"}, done.stderr
    for number in range(len(COMMANDS)):
        said = (tmp_path / f"{number}.txt").read_text()
        assert (
            f"torchvision 0.11.2 does not fit torch {version('torch')} (operator torchvision::nms does not exist). "
            in said
        )
        assert f"Run: {remedy()}" in said
        assert "defect of densebench" not in said and "hf: model" not in said and "Are this object's" not in said


@pytest.mark.parametrize(
    ("torch", "command"),
    [
        ("2.13.0+cpu", "torchvision==0.28.0 --index-url https://download.pytorch.org/whl/cpu"),
        ("2.9.1+cu130", "torchvision==0.24.1 --index-url https://download.pytorch.org/whl/cu130"),
        ("2.14.1", "torchvision==0.29.1"),
    ],
)
def test_the_command_installs_the_pair_of_the_installed_torch(monkeypatch, torch, command):
    monkeypatch.setattr(torchvision_fit, "version", lambda _name: torch)
    assert remedy() == f"pip install --force-reinstall --no-deps {command}"


def test_a_command_that_builds_no_encoder_says_the_same(monkeypatch, capsys):
    def missing(name):
        raise RuntimeError("a second import says something else")

    monkeypatch.setattr(torchvision_fit.importlib, "import_module", missing)
    monkeypatch.setattr(torchvision_fit, "version", lambda name: {"torch": "2.13.0", "torchvision": "0.24.1"}[name])
    lazy = ModuleNotFoundError("Could not import module 'Tipsv2Model'.")
    lazy.__cause__ = RuntimeError("operator torchvision::nms does not exist")
    assert _explain(lazy) == 2
    assert capsys.readouterr().err == (
        "error: torchvision 0.24.1 does not fit torch 2.13.0 (operator torchvision::nms does not exist). "
        "Run: pip install --force-reinstall --no-deps torchvision==0.28.0\n"
    )


def test_an_error_of_something_else_is_not_torchvisions():
    assert misfit(ValueError("no such layer")) is None
    assert misfit(None) is None
