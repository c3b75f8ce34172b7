"""kill -9 and the same command again, in short. The long form: `python tests/faults kills`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FAULTS = Path(__file__).parent
ONE_HEAD = f"import sys; sys.path[:0] = [{str(FAULTS)!r}]; from jobs import *; sys.exit(one_head(Path(sys.argv[1])))"


def run(*words: str) -> str:
    """What Python says of `words`, in a process that has not loaded JAX, whatever tests ran before in this one."""
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_after_kills_the_same_command_ends_as_an_undisturbed_one() -> None:
    said = run(str(FAULTS), "--seed", "3", "kills", "--brief", "--kills", "2")
    assert "scenes, training, head: 2 kills each, 0 files differ" in said


def test_a_kill_between_a_row_and_the_removal_of_its_heads_state_leaves_nothing(tmp_path: Path) -> None:
    for again in (False, True):
        run("-c", ONE_HEAD, str(tmp_path))
        (row,) = tmp_path.rglob("result.json")
        left = tmp_path / "cache" / "heads" / json.loads(row.read_text())["request"]
        assert not left.exists()
        if not again:
            left.mkdir(parents=True)
            (left / "head.safetensors").write_bytes(b"half")
