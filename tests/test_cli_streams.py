"""What becomes of a command whose output is closed, cannot hold a sign, or is read by nobody; and of Ctrl-C."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command import bench

import benchmark.cli.ls
from benchmark.cli.commands import LazyGroup

ROOT = Path(__file__).parents[1]


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """`line` in a shell where $BENCH is the command."""
    variables = {**os.environ, "BENCH": f"{sys.executable} -m benchmark.cli", **environment}
    return subprocess.run(["sh", "-c", line], capture_output=True, cwd=ROOT, env=variables)


def unread(words: str, folder: Path) -> tuple[int, bytes]:
    """Exit code and standard error of `bench WORDS` whose reader is gone before the first line."""
    done = shell(f"( $BENCH {words}; echo $? > {folder}/code ) | true")
    return int((folder / "code").read_text()), done.stderr


def test_a_reader_that_leaves_changes_no_exit_code(tmp_path):
    assert unread("show linear_segmentation", tmp_path) == (0, b"")
    assert unread("ls models --json", tmp_path) == (0, b"")
    assert unread(f"data verify ade20k --data {tmp_path}", tmp_path) == (1, b"")  # still: something is missing


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_sign_that_the_encoding_lacks_is_escaped(encoding):
    done = shell("$BENCH show normals --protocol fast", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"") and b"normals [fast]" in done.stdout


def test_closed_streams_swallow_what_they_are_given():
    done = shell("$BENCH show normals 1>&- 2>&-")
    assert done.returncode == 0
    assert shell("$BENCH ls model 2>&-").returncode == 2


def test_ctrl_c_says_that_the_command_can_be_given_again(monkeypatch, capsys):
    def stopped(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark.cli.ls, "columns", stopped)
    assert bench("ls", "models") == 130
    assert capsys.readouterr().err == "interrupted: what was finished is saved; the same command goes on from there\n"


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning", "ignore:This process:DeprecationWarning")  # of threads
def test_sigterm_ends_a_command_as_ctrl_c_does_and_its_workers_without_a_word(monkeypatch, capsys):
    def stopped(*_: object) -> str:
        worker = os.fork()
        if not worker:  # as a process that decodes pictures
            os.kill(os.getpid(), signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == -signal.SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)
        return "not reached"

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(benchmark.cli.ls, "columns", stopped)
    assert bench("ls", "models") == 143
    line = "stopped by SIGTERM: what was finished is saved; the same command goes on from there\n"
    assert capsys.readouterr().err == line and signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("during", ["typer", "benchmark.cli.ls"])
def test_a_signal_while_the_command_itself_is_imported_is_one_line(sent, code, during):
    script = (
        "import os, signal, sys; from benchmark.cli import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background has it ignored
        "class Sent:\n"
        "    def find_spec(self, name, *more):\n"
        f"        name == '{during}' and os.kill(os.getpid(), {int(sent)})\n"
        "sys.meta_path.insert(0, Sent())\n"
        "main(['ls', 'suites'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1) and done.stdout == ""
    assert done.stderr.endswith("what was finished is saved; the same command goes on from there\n")


def test_a_signal_while_words_are_read_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(LazyGroup, "parse_args", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert bench("ls", "models") == 143
    assert capsys.readouterr().err.startswith("stopped by SIGTERM: ")


def test_help_names_the_exit_codes(capsys):
    assert bench("--help") == 0
    out = capsys.readouterr().out
    text = " ".join(out.split())
    assert "..." not in out.partition("Commands:")[2], "each command is described in a line that fits"
    assert "0 done" in text and "2 wrong usage" in text and "3 regression" in text and "143 stopped" in text


def test_a_machine_at_its_limits_is_no_defect(monkeypatch, capsys):
    def failing(*_: object) -> str:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "results")

    monkeypatch.setattr(benchmark.cli.ls, "columns", failing)
    assert bench("ls", "models") == 1
    line = "error: results: Too many open files. Allow more open files (ulimit -n), then give the same command again\n"
    assert capsys.readouterr().err == line
