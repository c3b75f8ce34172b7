"""The leaderboard's page in headless Chromium: sorting, filtering, details, keyboard, themes, 5,000 rows."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from rows import CLASSES, write_row, write_rows

from benchmark.images.drawing import side_by_side
from benchmark.leaderboard import build
from benchmark.leaderboard.page import page as html_of
from benchmark.leaderboard.payload import payload
from benchmark.protocol import preset_table
from benchmark.registry import protocol_file

HOSTILE = "<script>document.title='broken'</script>"
SKILLS = {"alpha-b": 0.4, "beta-l": 0.6, "gamma-g": 0.59, HOSTILE: 0.3}


@pytest.fixture(scope="module")
def leaderboard(tmp_path_factory: pytest.TempPathFactory) -> str:
    results = tmp_path_factory.mktemp("results")
    write_rows(results, SKILLS)
    for model in ("beta-l", "gamma-g"):
        write_row(results, model, "linear_segmentation", SKILLS[model], dataset="ade20k", protocol_name="paper")
    head = "model,model_id,task,dataset,metric,value,source,note\n"
    line = "Beta L,beta-l,linear_segmentation,ade20k,mIoU,51.25,a paper,\n"
    (results / "published.csv").write_text(head + line)
    (results / "x" / "y" / "z" / "w-1").mkdir(parents=True)
    (results / "x" / "y" / "z" / "w-1" / "result.json").write_text("{")
    build(results)
    return f"file://{results}/leaderboard.html"


@pytest.fixture
def view(browser: Any, leaderboard: str) -> Iterator[Any]:
    """A fresh page that fails the test on any script error or request."""
    made = browser.new_page(viewport={"width": 1280, "height": 800})
    errors: list[str] = []
    made.on("pageerror", lambda e: errors.append(str(e)))
    made.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    made.on("request", lambda r: errors.append(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else None)
    made.goto(leaderboard)
    yield made
    assert errors == []
    made.close()


def names(view: Any) -> list[str]:
    """The first line of each row's header cell."""
    cells = view.locator("#view table tbody:not(.published) th.pin").all_inner_texts()
    return [c.split("\n")[0] for c in cells]


def open_scenes(view: Any) -> None:
    view.get_by_label("Suite and protocol").select_option("scenes · fast")


def test_headers_sort_both_ways_and_say_so(view: Any) -> None:
    open_scenes(view)
    assert names(view)[0] in ("beta-l", "gamma-g") and names(view)[-1] == HOSTILE
    header = view.get_by_role("button", name="Model")
    header.click()
    assert names(view) == sorted(names(view), key=str.lower)
    assert view.locator("th[aria-sort=ascending]").count() == 1
    header.click()
    assert view.locator("th[aria-sort=descending]").count() == 1
    assert names(view) == sorted(names(view), key=str.lower, reverse=True)


def test_chance_stands_below_the_rows_of_a_board_and_has_no_rank(view: Any) -> None:
    view.locator("#tab-board").click()
    boards = view.get_by_label("Task, dataset, protocol")
    titles = boards.locator("option").all_inner_texts()
    boards.select_option(index=next(i for i, title in enumerate(titles) if "kNN and linear" in title))
    foot = view.locator("#view tfoot tr")
    assert foot.count() == 1
    cells = foot.locator("th, td").all_inner_texts()
    assert cells[:3] == ["", "chance", "12.5"] and not any(cells[3:])
    view.get_by_role("button", name="Model").click()
    assert names(view)[0] != "chance" and view.locator("#view tfoot tr").count() == 1


def test_a_column_of_a_lower_is_better_metric_starts_with_the_lowest(view: Any) -> None:
    open_scenes(view)
    view.locator("th button.sort", has_text="RMSE m").click()
    assert names(view)[0] in ("beta-l", "gamma-g")


def test_filters_narrow_models_and_columns_and_can_be_reset(view: Any) -> None:
    open_scenes(view)
    view.get_by_label("Search").fill("beta")
    assert names(view) == ["beta-l"]
    view.get_by_role("button", name="Reset").click()
    assert len(names(view)) == 4
    view.get_by_label("Family").select_option("gamma")
    assert names(view) == ["gamma-g"]
    view.get_by_label("Family").select_option("")
    view.get_by_label("Task").select_option("depth")
    assert view.locator("#view thead th.task").all_inner_texts() == ["Monocular depth"]
    view.get_by_label("Size").select_option(index=1)
    view.get_by_label("Licence").select_option(index=1)


def test_a_model_called_script_stays_text(view: Any) -> None:
    open_scenes(view)
    assert HOSTILE in names(view)
    assert view.title() == "densebench leaderboard"


def test_a_number_opens_its_whole_provenance_and_escape_closes_it(view: Any) -> None:
    open_scenes(view)
    view.locator("button.cell").first.click()
    dialog = view.locator("dialog[open]")
    text = dialog.inner_text()
    for word in ("sha256", "data digest", "bench run --model", "seed", "torch 2.13.0", "confirmed", "images_per_s"):
        assert word in text, word
    view.keyboard.press("Escape")
    assert view.locator("dialog[open]").count() == 0


def test_a_laptop_shows_nine_tasks_whole_and_one_row_alone_is_no_best(browser: Any, tmp_path: Path) -> None:
    write_rows(tmp_path, {"tipsv2-mini": 0.5, "clip-mini": 0.6})
    write_row(tmp_path, "alone", "depth", 0.5, dataset="nyuv2")
    build(tmp_path)
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(f"file://{tmp_path}/leaderboard.html")
    assert page.locator("#view td .value").count() == 1 and not page.locator("#view td.best, #view td.tie").count()
    open_scenes(page)
    assert page.locator("#view td.best").count() == 9
    assert page.locator(".scroll").evaluate_all("all => all.every((one) => one.scrollWidth <= one.clientWidth)")
    page.close()


def test_a_stale_row_is_marked_and_says_why(browser: Any, tmp_path: Path) -> None:
    write_row(tmp_path, "mini", "depth")
    file = write_row(tmp_path, "old", "depth", 0.4) / "result.json"
    data = json.loads(file.read_text())
    data["model"]["code"] = {"adapters.clip": "1"}
    file.write_text(json.dumps(data))
    build(tmp_path)
    page = browser.new_page()
    page.goto(f"file://{tmp_path}/leaderboard.html")
    marked = page.locator("button.cell:has-text('‡')")
    assert marked.count() == 1 and "adapters.clip" in marked.get_attribute("title")
    assert "‡ stale" in page.locator("#view").inner_text()
    marked.click()
    assert "the row was made by 1" in page.locator("dialog[open]").inner_text()
    page.close()


def test_a_row_shows_its_pictures_and_shipped_rows_are_marked(browser: Any, tmp_path: Path) -> None:
    folder = write_row(tmp_path / "mine", "beta-l", "depth")
    write_row(tmp_path / "shipped", "floor", "depth", 0.2)
    drawn = side_by_side(np.zeros((9, 9, 3), np.uint8), np.ones((9, 9)), np.ones((9, 9)), "depth")
    (folder / "pictures").mkdir()
    (folder / "pictures" / "worst-1_RMSE-0.9_test-00001.png").write_bytes(drawn)
    build(tmp_path / "mine", reference=tmp_path / "shipped")
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(f"file://{tmp_path}/mine/leaderboard.html")
    assert names(page) == ["beta-l", "floor †"]
    page.locator("button.cell").first.click()
    picture = page.locator("dialog .pictures img")
    assert picture.evaluate("i => i.decode().then(() => i.naturalWidth)") == 4 * 224 + 3 * 4
    assert "worst 1 · RMSE 0.9 · test-00001" in page.locator("dialog figcaption").inner_text()
    page.keyboard.press("Escape")
    page.locator("button.cell").last.click()
    assert "came with densebench" in page.locator("dialog").inner_text()
    page.close()


def test_everything_is_reached_by_keyboard(view: Any) -> None:
    view.locator("#tab-overview").focus()
    view.keyboard.press("ArrowRight")
    assert view.locator("[role=tab][aria-selected=true]").inner_text() == "One task"
    view.keyboard.press("ArrowLeft")
    view.get_by_label("Suite and protocol").focus()
    view.locator("th button.sort").first.focus()
    view.keyboard.press("Enter")
    assert view.evaluate("document.activeElement.dataset.column") == "model"
    view.locator("button.cell").first.focus()
    view.keyboard.press("Enter")
    assert view.locator("dialog[open]").count() == 1


def test_published_numbers_stand_apart_and_unranked(view: Any) -> None:
    view.get_by_label("Suite and protocol").select_option("datasets · paper")
    body = view.locator("tbody.published")
    assert "Beta L" in body.inner_text() and "51.25" in body.inner_text() and "not ranked" in body.inner_text()
    view.locator("#tab-papers").click()
    assert "[" in view.locator("#view").inner_text()  # the measured interval beside it


@pytest.mark.parametrize("name", ["board", "cost", "classes", "samples", "protocols", "papers"])
def test_every_view_draws_without_an_error(view: Any, name: str) -> None:
    view.locator(f"#tab-{name}").click()
    assert view.locator("#view table").count() >= 1
    if name in ("cost", "classes", "samples"):
        assert view.locator("#view canvas").count() == 1


def test_classes_and_samples_name_what_they_show(view: Any) -> None:
    view.locator("#tab-classes").click()
    assert set(names(view)) == set(CLASSES)
    view.locator("#tab-samples").click()
    boards = view.get_by_label("Task, dataset, protocol")
    labels = [o for o in boards.locator("option").all_text_contents() if "classification" in o]
    boards.select_option(label=labels[0])
    assert "McNemar" in view.locator("#view").inner_text()


def test_a_protocol_says_what_in_it_is_inferred(view: Any) -> None:
    view.locator("#tab-board").click()
    boards = view.get_by_label("Task, dataset, protocol")
    boards.select_option(label=next(o for o in boards.locator("option").all_text_contents() if "paper" in o))
    view.get_by_role("button", name="Which protocol is this?").click()
    panel = view.locator("details.protocol[open]")
    fields = preset_table("linear_segmentation", protocol_file("linear_segmentation"), "paper", "ade20k")[0].values()
    unsure = [field for field in fields if isinstance(field, dict) and field["status"] == "inferred"]
    assert panel.locator(".chip.inferred").count() == len(unsure) + 1 > 1  # and the number of them
    assert unsure[0]["source"] in panel.inner_text()


def test_left_out_files_are_named(view: Any) -> None:
    view.locator("#problems summary").click()
    assert "x/y/z/w-1/result.json" in view.locator("#problems").inner_text()


@pytest.mark.parametrize("name", ["overview", "board", "cost", "classes", "samples", "protocols", "papers"])
def test_a_phone_scrolls_tables_and_never_the_page(browser: Any, leaderboard: str, name: str) -> None:
    phone = browser.new_page(viewport={"width": 360, "height": 740}, has_touch=True)
    phone.goto(f"{leaderboard}#{name}")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 360
    phone.close()


def test_light_and_dark_follow_the_system_and_the_button(browser: Any, leaderboard: str) -> None:
    dark = browser.new_page(color_scheme="dark")
    dark.goto(leaderboard)
    background = "getComputedStyle(document.body).backgroundColor"
    before = dark.evaluate(background)
    dark.locator("#theme").click()
    after = dark.evaluate(background)
    assert sum(map(int, before[4:-1].split(","))) < 150 < 600 < sum(map(int, after[4:-1].split(",")))
    dark.close()


def test_five_thousand_rows_stay_usable(browser: Any, tmp_path: Path) -> None:
    from benchmark.leaderboard.collect import collect

    write_rows(tmp_path / "results", {"seed": 0.6}, ["linear_segmentation"])
    data = payload(collect(tmp_path / "results")[0], [], [], {tmp_path / "results": ""})
    row, model = data["rows"][0], data["models"][0]
    data["models"] = [{**model, "name": f"model-{i:04d}", "family": f"family-{i % 7}"} for i in range(5000)]
    data["rows"] = [{**row, "m": i, "v": 20 + i / 100, "rank": 5000 - i, "tie": False} for i in range(5000)]
    (tmp_path / "big.html").write_text(html_of(data), encoding="utf-8")
    big = browser.new_page()
    big.goto(f"file://{tmp_path}/big.html")
    assert "of 5000" in big.locator(".pager").inner_text()
    big.locator("[data-column=model]").click()
    big.get_by_label("Search").fill("model-4999")
    assert names(big) == ["model-4999"]
    big.get_by_label("Search").fill("")
    big.get_by_role("button", name="Next").click()
    assert names(big)[0] == "model-0100"
    for name in ("board", "cost", "classes", "samples"):
        big.locator(f"#tab-{name}").click()
    big.close()


def test_one_row_of_a_part_of_the_data_leaves_every_mean_rank(browser: Any, tmp_path: Path) -> None:
    write_rows(tmp_path, {"a": 0.6, "b": 0.5}, ["depth", "normals"])
    part = write_row(tmp_path / "other", "a", "depth", n=20, partial=["test: 20 of 120"])
    shutil.copytree(part, tmp_path / "a" / "depth" / "scenes" / part.name.replace("fast-", "fast-limit20-"))
    shutil.rmtree(tmp_path / "other")
    build(tmp_path)
    page = browser.new_page()
    page.goto(f"file://{tmp_path}/leaderboard.html")
    open_scenes(page)
    cells = page.locator("#view table tbody tr").all_inner_texts()
    assert len(cells) == 2 and all("±" in c and " of " not in c for c in cells)
    page.get_by_label("Suite and protocol").select_option("scenes · fast · a part of the data")
    assert len(page.locator("#view table tbody tr").all_inner_texts()) == 1
    page.close()


def test_a_printed_page_is_light_and_loses_no_column(browser: Any, leaderboard: str) -> None:
    paper = browser.new_page(viewport={"width": 1050, "height": 740}, color_scheme="dark")  # A4 across, in CSS pixels
    paper.goto(leaderboard)
    paper.locator("#theme").click()
    paper.locator("#theme").click()  # dark by choice: a browser prints that as it is
    open_scenes(paper)
    paper.emulate_media(media="print")
    paper.evaluate("dispatchEvent(new Event('beforeprint'))")
    ink = "getComputedStyle(document.body).color"
    assert sum(map(int, paper.evaluate(ink)[4:-1].split(","))) < 200
    edges = paper.evaluate(
        """[...document.querySelectorAll('#view thead th, #view .scroll')].map(e => e.getBoundingClientRect().right)"""
    )
    assert max(edges) <= 1050
    assert paper.evaluate("getComputedStyle(document.querySelector('#view .scroll')).overflowX") == "visible"
    paper.evaluate("dispatchEvent(new Event('afterprint'))")
    assert paper.evaluate("document.documentElement.dataset.theme") == "dark"
    paper.close()


def test_long_model_names_leave_room_for_their_numbers(browser: Any, tmp_path: Path) -> None:
    long = "hf:an-organisation/a-model-with-registers-and-a-long-name-large-patch14-518"
    write_rows(tmp_path, {long: 0.6, f"{long}-b": 0.5}, ["linear_segmentation"])
    build(tmp_path)
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    for view in ("classes", "samples"):
        page.goto(f"file://{tmp_path}/leaderboard.html#{view}")
        page.reload()
        box, table = page.locator("#view .scroll").evaluate("e => [e.clientWidth, e.scrollWidth]")
        assert table <= box, view
    page.close()


def test_the_view_of_one_task_says_what_its_signs_mean(view: Any) -> None:
    view.locator("#tab-board").click()
    assert "≈ not significantly worse" in view.locator("#view .head").inner_text()
