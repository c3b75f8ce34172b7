"""What pyproject.toml cannot say: in a wheel the shipped rows of results/ are data of `benchmark`, no package."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROWS = Path("results")
CSVS = ("published.csv", "published_models.csv", "measured_elsewhere.csv")
SHIPPED = (*CSVS, *(f"reference/**/*.{ending}" for ending in ("json", "csv", "parquet", "png")))
MADE_HERE = ("results.csv", "noise.json")


class WithRows(build_py):
    """Copies the rows into what becomes a wheel; a checkout that is installed in place has them beside it."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for path in (path for pattern in SHIPPED for path in ROWS.glob(pattern) if path.name not in MADE_HERE):
            to = Path(self.build_lib, "benchmark", "shipped", path.relative_to(ROWS))
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)


setup(cmdclass={"build_py": WithRows})
