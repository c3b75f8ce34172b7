"""Words in, words out: names, help, listings, and one line for every mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from command import bench

from benchmark.cli import main
from benchmark.cli.commands import COMMANDS, app
from benchmark.engine.options import RunOptions
from benchmark.system.paths import data_dir, results_dir

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["run", "ade20k"], 2, "(ade20k) Did you mean --task ade20k? See bench run --help"),
        (["run", "dinov2-b", "--limit", "3"], 2, "(dinov2-b) Did you mean --model dinov2-b? See bench run --help"),
        (["run", "everything"], 2, "(everything) See bench run --help"),
        (["run", "--model", "tipsv2-1", "--task", "scenes"], 2, "unknown model 'tipsv2-1'. Did you mean 'tipsv2-l'"),
        (["run", "--model", "pixels", "--task", "ade2k"], 2, "unknown task or dataset 'ade2k'. Did you mean 'ade20k'"),
        (["run", "--model", "pixels", "--task", "depth/ade20k"], 2, "ade20k has no depth"),
        (["run", "--model", "pixels", "--suite", "scene"], 2, "unknown suite 'scene'. Did you mean 'scenes'"),
        (["run", "--model", "pixels", "--protocol", "fats"], 2, "'fats'. Did you mean 'fast'"),
        (["run", "--model", "pixels", "--set", "k"], 2, "--set 'k': must be field=value"),
        (["run", "--model", "pixels", "--task", "depth/scenes", "--set", "depth.holdout=often"], 2, "'often' is str"),
        (["run", "--model", "pixels", "--task", "none.toml"], 2, "none.toml: no such file"),
        (["run", "--model", "pixels", "--weights", "nowhere", "--task", "scenes"], 2, "--weights nowhere: no such file"),  # noqa: E501
        (["run", "--model", "pixels", "--batch-size", "0"], 2, "--batch-size '0': must be auto or a positive number"),
        (["check", "--model", "pixels", "--gelu", "tanh"], 2, "--gelu tanh: pixels has no such choice"),
        (["run", "--model", "pixels", "--limit", "1"], 2, "--limit 1 is below 2"),
        (["run", "--model", "pixels", "--dtype", "int4"], 2, "--dtype 'int4' is not one of auto, float32"),
        (["run", "--model", "pixels", "--backend", "tf"], 2, "--backend 'tf' is not one of torch, jax"),
        (["run", "--model", "nowhere.py:build", "--task", "depth/scenes"], 2, "nowhere.py"),
        (["run", "--model", "pixels", "--task", "depth/scenes", "--set", "binz=3"], 2, "unknown protocol field in --set 'binz'. Did you mean 'bins'"),  # noqa: E501
        (["plan", "--model", "pixels", "--task", "depth/scenes", "--set", "dept.bins=3"], 2, "unknown task in --set 'dept'. Did you mean 'depth'"),  # noqa: E501
        (["run", "--model", "mine.py", "--task", "depth/scenes"], 2, "mine.py is a file. Name the function"),
        (["run", "--model", str(Path(__file__).parent), "--task", "depth/scenes"], 2, "tests is a folder: --model hf:"),
        (["run", "--model", "pixels", "--weights", __file__, "--task", "depth/scenes", "--limit", "4"], 2, "pixels is a floor and reads no weights"),  # noqa: E501
        (["run", "--model", "pixels", "--task", "depth/scenes", "--limit", "4", "--results", __file__], 2, "results cannot be written there (is a file)"),  # noqa: E501
        (["run", "--model", "pixels", "--task", "depth/scenes", "--seed", "-1"], 2, "--seed -1: must be from 0"),
        (["compare", "pixels", "random-vit", "--seed", "-1"], 2, "'--seed'"),
        (["train", "tipsv2-mini-64", "--dry-run", "--devices", "0"], 2, "'--devices'"),
        (["distill", "distil-mini", "--dry-run", "--utilisation", "0"], 2, "'--utilisation'"),
        (["watch", ".", "--once", "--model", "pixel"], 2, "unknown model 'pixel'. Did you mean 'pixels'"),
        (["watch", ".", "--once", "--model", "pixels", "--suite", "scene"], 2, "unknown suite 'scene'. Did you mean"),
        (["watch", ".", "--once", "--model", "pixels", "--protocol", "fats"], 2, "'fats'. Did you mean 'fast'"),
        (["watch", ".", "--once", "--model", "pixels", "--limit", "1"], 2, "--limit 1 is below 2"),
        (["watch", ".", "--once", "--model", "pixels", "--out", __file__], 1, "cannot be written (File exists)"),
        (["compare", "pixels", "random-vit", "--markdown", str(ROOT / "tests")], 1, "(Is a directory)"),
        (["run", "--model", "pixels", "--task", "ade150", "--task", "depth/scenes", "--protocol", "tcl"], 2, "unknown protocol of depth 'tcl'"),  # noqa: E501
        (["data", "verify", "mine.toml", "--option", "a=b"], 2, "--option a=b: mine.toml says everything itself"),
        (["leaderboard", "--results", "nowhere"], 2, "--results nowhere: no such folder"),
        (["compare", "pixels", "random-vit", "--results", "nowhere"], 2, "--results nowhere: no such folder"),
        (["reproduce", "tipsv2", "--results", "nowhere"], 2, "--results nowhere: no such folder"),
        (["distill", "tipsv2-mini-64", "--dry-run"], 2, "tipsv2-mini-64 names no teacher"),
        (["train", "large"], 2, "distil-mini, distil-so400m, g-224"),
        (["run", "--modle", "pixels"], 2, "--modle"),
        (["rnu"], 2, "rnu"),
        (["ls", "model"], 2, "unknown list 'model'. Did you mean 'models'"),
        (["show", ""], 2, "unknown name ''"),
        (["run", "--model", "", "--task", "depth/scenes"], 2, "unknown model ''"),
        (["look", "a.jpg", "--out", "look.txt"], 2, "--out look.txt: what is drawn is a PNG. Name it look.png"),
        (["show", "depht"], 2, "unknown name 'depht'. Did you mean 'depth'"),
        (["cache", "prune"], 2, "say what to delete"),
        (["cache", "prune", "--older-than", "3 weeks"], 2, "must be a number with s, m, h or d"),
    ],
)  # fmt: skip
def test_wrong_words_get_one_line_and_code(words, code, message, capsys, results):
    assert bench(*words) == code
    err = capsys.readouterr().err.strip().splitlines()
    assert len(err) == 1, err
    assert err[0].startswith("error: ") and message in err[0]


def test_a_cache_that_cannot_be_written_is_named_with_its_variable(capsys, results, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", __file__)
    assert bench("run", "--model", "pixels", "--task", "depth/scenes", "--limit", "4", "--dtype", "float32") == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert __file__ in line and "cannot be written" in line and line.endswith("Choose another cache with BENCH_CACHE")


def test_missing_data_is_one_line_and_exit_1(capsys, results, tmp_path):
    assert bench("run", "--model", "pixels", "--task", "ade20k", "--data", str(tmp_path)) == 1
    err = capsys.readouterr().err.strip().splitlines()
    assert len(err) == 1 and "linear_segmentation/ade20k" in err[0] and "bench data" in err[0]


def test_a_folder_that_may_not_be_read_fails_its_task_alone(capsys, results, tmp_path, monkeypatch):
    """Permissions do not hold for every user that runs tests, so the system's answer is simulated."""
    exists = Path.exists

    def forbidden(path: Path, **more: bool) -> bool:
        if path.parts[-1:] == ("training",):
            raise PermissionError(13, "Permission denied", str(path))
        return exists(path, **more)

    monkeypatch.setattr(Path, "exists", forbidden)
    words = ["--task", "ade20k", "--task", "voc2012", "--data", str(tmp_path)]
    assert bench("run", "--model", "pixels", *words) == 1
    first, second = capsys.readouterr().err.strip().splitlines()
    assert "linear_segmentation/ade20k" in first and "training: Permission denied" in first
    assert "linear_segmentation/voc2012" in second
    assert bench("data", "verify", "ade20k", "--data", str(tmp_path)) == 1
    assert "training: Permission denied. Check" in capsys.readouterr().err


def test_data_that_break_a_reader_fail_their_task_alone(capsys, results, tmp_path, monkeypatch):
    from benchmark.engine import jobs

    opened = jobs.open_dataset

    def broken(name: str, *more: Any) -> Any:
        if name == "ade20k":
            raise ValueError("field larger than field limit")
        return opened(name, *more)

    monkeypatch.setattr(jobs, "open_dataset", broken)
    words = ["--task", "ade20k", "--task", "voc2012", "--data", str(tmp_path)]
    assert bench("run", "--model", "pixels", *words) == 1
    first, second = capsys.readouterr().err.strip().splitlines()
    assert "linear_segmentation/ade20k: ValueError: field larger" in first and "voc2012" in second


@pytest.mark.parametrize("more", [["--model", "nowhere.py:build"], ["--model", "tipsv2-b", "--weights", "nowhere"]])
def test_a_file_that_is_not_there_is_named_before_any_data_are_made(more, capsys, monkeypatch):
    monkeypatch.setattr("benchmark.engine.jobs.open_dataset", lambda *_: pytest.fail("data were opened"))
    assert bench("run", "--task", "depth/scenes", *more) == 2
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_has_help_with_an_example(command, capsys):
    assert bench(command, "--help") == 0
    text = capsys.readouterr().out
    assert f"bench {command}" in text and "Example" in text


def test_help_lists_every_command(capsys):
    assert bench("--help") == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)


@pytest.mark.parametrize("what", ["models", "tasks", "datasets", "suites"])
def test_ls_as_text_and_as_json_name_the_same_things(what, capsys):
    assert bench("ls", what) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert bench("ls", what, "--json") == 0
    assert names == [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()]


def test_ls_and_help_import_nothing_heavy():
    code = (
        "import sys, io, contextlib\n"
        "from benchmark.cli import main\n"
        "for words in (['ls', 'models'], ['ls', 'tasks'], ['--help']):\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "        main(words)\n"
        "import benchmark\n"
        "heavy = {'torch', 'jax', 'transformers', 'mmseg', 'mmengine', 'pandas', 'sklearn', 'scipy'}"
        " & set(sys.modules)\n"
        "print(sorted(heavy))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_show_prints_every_protocol_field_with_status_and_source(capsys):
    assert bench("show", "linear_segmentation", "--protocol", "fast") == 0
    text = capsys.readouterr().out
    for word in ("pixels_per_image", "64", "confirmed", "penalties"):
        assert word in text


def test_show_dataset_names_licence_layout_and_how_to_get_it(capsys):
    assert bench("show", "ade20k") == 0
    text = capsys.readouterr().out
    for word in ("licence", "layout", "ADEChallengeData2016", "citation"):
        assert word in text


def test_the_version_is_the_installed_distributions(capsys):
    import benchmark

    assert bench("--version") == 0
    assert capsys.readouterr().out.split() == ["densebench", benchmark.__version__]


def test_ls_alone_says_what_there_is_to_list(capsys):
    assert bench("ls") == 0
    words = capsys.readouterr().out
    assert all(f"bench ls {kind}" in words for kind in ("models", "tasks", "datasets", "suites"))


def test_show_of_a_family_shows_its_members(capsys):
    assert bench("show", "siglip2") == 0
    shown = capsys.readouterr().out
    assert "siglip2-b16-256" in shown and "siglip2-so400m-384" in shown and "siglip-b16" not in shown


def test_plan_counts_forwards_with_and_without_sharing(capsys, results):
    # a limit of its own: what other tests have stored is not counted again
    assert bench("plan", "--model", "pixels", "--suite", "scenes", "--limit", "44", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["forwards"] == 44 * 5
    assert plan["forwards_without_sharing"] > plan["forwards"]
    notes = {u["unit"]: u["note"] for u in plan["units"]}
    assert notes["zero_shot_classification/scenes"] == "n/a: pixels has no text tower"


def test_plan_takes_the_words_of_run():
    group = typer.main.get_command(app)
    run, plan = ({o for p in group.get_command(None, name).params for o in p.opts} for name in ("run", "plan"))
    assert run <= plan


def test_plan_counts_rows_that_force_would_make_again(capsys, results):
    words = ["--model", "random-vit", "--task", "image_to_text_retrieval/scenes", "--limit", "12"]
    assert bench("run", *words) == 0
    capsys.readouterr()
    notes = []
    for more in ([], ["--force"]):
        assert bench("plan", *words, "--json", *more) == 0
        notes.append(json.loads(capsys.readouterr().out)["units"][0]["note"])
    assert notes == ["done", ""]


def test_cache_ls_and_prune(capsys, results, tmp_path, monkeypatch):
    from benchmark.features.store import FeatureStore

    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    import numpy as np

    FeatureStore(tmp_path / "features").array({"model": "m", "tap": {"name": "cls"}}, 3).write(
        0, np.ones((3, 4), np.float32)
    )
    assert bench("cache", "ls") == 0
    assert "1 arrays" in capsys.readouterr().out
    assert bench("cache", "prune", "--all") == 0
    assert bench("cache", "ls", "--json") == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"freed in {tmp_path}")


def test_a_user_without_a_home_is_told_what_to_set(capsys, monkeypatch):
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("BENCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "expanduser", homeless)
    assert bench("cache", "ls") == 2
    assert "no home folder. Say where the cache goes with BENCH_CACHE" in capsys.readouterr().err


def test_an_empty_variable_is_an_unset_one(monkeypatch):
    """CI sets variables of nothing; an empty path would be the folder one stands in."""
    for name in ("BENCH_DATA", "BENCH_RESULTS"):
        monkeypatch.setenv(name, "")
    assert (data_dir(), results_dir()) == (Path("data"), Path("results"))


def test_folders_may_be_text_from_python():
    folders: dict[str, Any] = {"data": "d", "results": "r", "cache": "c"}
    options = RunOptions(**folders)
    assert (options.data, options.results, options.cache) == (Path("d"), Path("r"), Path("c"))


def test_module_form_is_the_same_command():
    done = subprocess.run(
        [sys.executable, "-m", "benchmark.cli", "ls", "suites"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0 and "scenes" in done.stdout


def test_an_encoders_error_names_the_model_once(tmp_path, monkeypatch, capsys):
    for place in ("engine.run", "engine.loading"):  # it would stay forbidden for the tests after this one
        monkeypatch.setattr(f"benchmark.{place}.forbid_network", lambda: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    words = ["run", "--model", "dinov2-b", "--task", "depth/scenes", "--limit", "4", "--offline", "--results", "r"]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(words)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert ended.value.code == 1 and line.startswith("error: dinov2-b: facebook/dinov2-base@")


def test_where_weights_come_from_is_never_the_code_that_reads_them(capsys):
    assert bench("ls", "models") == 0
    assert ":build" not in capsys.readouterr().out
