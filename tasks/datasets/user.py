"""A user's own data: a TOML file that names a task, folders and classes becomes a runnable task.

    task = "linear_segmentation"
    name = "orchard"
    classes = ["ground", "leaf", "apple"]
    [train]
    images = "train/images"
    masks = "train/masks"
    [test]
    images = "test/images"
    masks = "test/masks"

Relative paths start at the file. `examples/my_task/` has one file for each task.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.contracts import Dataset, DatasetInfo
from benchmark.errors import UsageError
from tasks.datasets.places import split_error
from tasks.datasets.user_fields import TaskFile, check_apart, read_task_file
from tasks.datasets.user_read import prompt_templates, read_split


@dataclass(frozen=True)
class UserDataset(Dataset):
    """The data a TOML task names."""

    info: DatasetInfo
    file: TaskFile

    def data(self, kind: str, split: str) -> Any:
        if kind != self.file.kind or split not in self.info.splits:
            raise split_error(self.info, kind, split)
        return read_split(self.file, split)

    def check_apart(self) -> None:
        """Raises UsageError where a trained task would be scored on the folder it is trained on."""
        check_apart(self.file)

    def wrong_field(self, field: str, message: str) -> UsageError:
        """The error for a `field` of the file's [protocol], with its line."""
        return self.file.wrong(message, "protocol", field)


@dataclass(frozen=True)
class UserTask:
    """A task name, its data, and what the file says about the protocol (field -> TOML text, as for `--set`)."""

    task: str
    dataset: UserDataset
    protocol_overrides: Mapping[str, str] = field(default_factory=dict)


def open_task(path: Path) -> UserTask:
    """The task of the TOML file at `path`. Raises UsageError "file:line: what is wrong"; data is read later."""
    file = read_task_file(Path(path))
    values = file.values
    overrides = {key: json.dumps(value, ensure_ascii=False) for key, value in values.get("protocol", {}).items()}
    if "templates" in values:
        if not values["task"].startswith("zero_shot"):
            raise file.wrong(f"templates are prompts, and {values['task']} asks none. Delete the line", "templates")
        prompt_templates(file)
        overrides["templates"] = json.dumps("dataset")
    tables = tuple(split for split in ("train", "test") if split in values)
    splits = ("train", "test") if "split" in values else tables or ("test",)
    info = DatasetInfo(
        name=values["name"],
        title=values.get("title", values["name"]),
        licence=values.get("licence", "the user's own"),
        citation="",
        url="",
        layout=str(file.path),
        kinds=(file.kind,),
        splits=splits,
    )
    return UserTask(values["task"], UserDataset(info, file), overrides)
