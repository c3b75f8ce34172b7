"""Files written whole: with the rights the user's umask gives, on disks that know no rights too."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark.errors import BenchError
from benchmark.system.files import make_folder, only_writer, write_text

ROOT = Path(__file__).parents[1]
WRITE = """
import os, sys
from pathlib import Path
os.umask(int(sys.argv[2], 8))
from benchmark.system.files import write_text
write_text(Path(sys.argv[1]), "x")
"""


@pytest.mark.parametrize(("mask", "mode"), [("077", 0o600), ("022", 0o644), ("002", 0o664)])
def test_a_file_has_the_rights_that_the_umask_gives(tmp_path: Path, mask: str, mode: int) -> None:
    path = tmp_path / "file"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", WRITE, str(path), mask], env=environment, check=True)
    assert path.stat().st_mode & 0o777 == mode


def test_a_disk_without_rights_takes_files_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refused)
    write_text(tmp_path / "file", "x")
    assert (tmp_path / "file").read_text() == "x"


def held(folder: Path) -> None:
    with only_writer(folder):
        raise AssertionError("it is not there")


@pytest.mark.parametrize("ask", [make_folder, lambda folder: write_text(folder / "a.md", ""), held])
def test_a_folder_that_cannot_be_made_is_one_line(monkeypatch: pytest.MonkeyPatch, ask: Callable[[Path], None]) -> None:
    """/proc takes no folder, and says that there is no such file."""

    def nothing(self: Path, *_: object, **__: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(self))

    monkeypatch.setattr(Path, "mkdir", nothing)
    with pytest.raises(BenchError, match="^/gone: cannot be made .No such file or directory.. Choose another folder$"):
        ask(Path("/gone"))
