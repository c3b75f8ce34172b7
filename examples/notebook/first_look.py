# %% [markdown]
# # From your own pictures to a table
#
# Pictures with masks, two encoders, one task file: look at the data, run, read the numbers, look at what was
# predicted. `python examples/notebook/make.py` runs these cells and writes the notebook; on your data only the task
# file changes.

# %%
import runpy
import shutil
import tempfile
from pathlib import Path

from benchmark import load_results, load_task, run

EXAMPLES = next(p for p in (Path("examples"), Path(".."), Path(".")) if (p / "my_task").is_dir()) / "my_task"
folder = Path(tempfile.mkdtemp())
runpy.run_path(str(EXAMPLES / "make_data.py"))["main"](folder / "data")
task = str(shutil.copy(EXAMPLES / "linear_segmentation.toml", folder))

# %% [markdown]
# ## Look at the data first
#
# Before any model is loaded: each picture beside its target, and the target over it. A mask that is shifted or
# belongs to another picture is seen here. (`bench show my_task.toml --pictures look.png` is the same on the command
# line.)

# %%
loaded = load_task(task)
loaded

# %%
from benchmark.images.samples import look_at_samples

look_at_samples(loaded.data["train"], "training pictures", 1)

# %% [markdown]
# ## Run
#
# `pixels` knows the colour and place of each patch, `random-vit` is an untrained ViT: the floors that your own
# encoder has to beat. Rows are kept: the same call again does nothing.

# %%
quick = {"pixels_at_most": "64", "penalties": "[1e-2, 1e-4]"}  # this page in seconds; leave it out
report = run(["random-vit", "pixels"], task, results=folder / "results", overrides=quick, check=False)
report

# %%
table = report.table()
table[["model", "metric", "value", "ci95_low", "ci95_high", "chance"]].round(2)

# %%
again = run(["random-vit", "pixels"], task, results=folder / "results", overrides=quick, check=False)
print(f"{len(again.rows)} rows, {again.reused} were there")

# %% [markdown]
# ## What did the probe make of it?
#
# A test picture with its mask, the prediction and where it is wrong; above them the score, what is had without seeing
# a picture, and what the true shares of each patch would get, so that a coarse grid is not read as a weak encoder.
# (That is no strict bound: a probe can draw an edge inside a patch.)

# %%
from benchmark.engine.options import RunOptions
from benchmark.look.task import look_at_task

look_at_task("random-vit", task, count=1, options=RunOptions(overrides=quick))

# %% [markdown]
# ## Later, elsewhere
#
# Everything that was measured is in the folder of rows: `load_results` is a pandas table of it, `bench compare` pairs
# two of its models on the same pictures, `bench leaderboard` makes one page.

# %%
rows = load_results(folder / "results")
rows[rows["metric"] == "mIoU"].groupby("model")["value"].max().round(1)
