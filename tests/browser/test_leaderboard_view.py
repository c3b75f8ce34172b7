"""The view in the address, tables as text, filters that lead somewhere: by keyboard alone, on a desk in light colours
and on a phone in dark ones."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from rows import write_row, write_rows

from benchmark.leaderboard import build
from benchmark.rows.parse import as_json
from benchmark.rows.published import PublishedNumber
from benchmark.rows.row import Row, read_row
from benchmark.sensitivity.effects import effects
from benchmark.sensitivity.kept import keep

KEPT = "navigator.clipboard.writeText = (text) => { window.copied = text; return Promise.resolve(); }"
SKILLS = {"alpha-b": 0.4, "beta-l": 0.6, "gamma_g": 0.59, "=1+1": 0.3}
SCREENS = [(1280, 800, "light"), (390, 780, "dark")]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    write_rows(folder, SKILLS, ["depth", "linear_segmentation", "classification"])
    for model in ("beta-l", "gamma_g"):
        write_row(folder, model, "linear_segmentation", SKILLS[model], dataset="ade20k", protocol_name="paper")
    head = "model,model_id,task,dataset,metric,value,source,note\n"
    line = "Beta L,beta-l,linear_segmentation,ade20k,mIoU,51.25,a paper,\nGamma,,normals,nyuv2,angular RMSE,22.5,b,\n"
    (folder / "published.csv").write_text(head + line)
    (folder / "measured_elsewhere.csv").write_text(
        "model,task,dataset,split,metric,value,tool,protocol,differs,date,source\n"
    )
    build(folder)
    return folder


@pytest.fixture(params=SCREENS, ids=lambda s: f"{s[0]}-{s[2]}")
def page(request: pytest.FixtureRequest, browser: Any, results: Path) -> Iterator[Any]:
    """The page of `results` on one of SCREENS; fails the test on any script error."""
    width, height, scheme = request.param
    made = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    errors: list[str] = []
    made.on("pageerror", lambda e: errors.append(str(e)))
    made.add_init_script(KEPT)
    made.goto(f"file://{results}/leaderboard.html")
    yield made
    assert errors == []
    made.close()


def tab_to(page: Any, selector: str) -> None:
    """Presses Tab until what `selector` names has the focus."""
    for _ in range(120):
        if page.evaluate("s => document.activeElement.matches(s)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"the keyboard does not reach {selector}")


def shown(page: Any) -> list[list[str]]:
    """The cells of the view's table, without what a name has below it."""
    return page.evaluate(
        """() => [...document.querySelectorAll('#view table tbody tr')].map((r) => [...r.cells].map((c) => {
        const d = c.cloneNode(true); d.querySelectorAll('.sub, .pm').forEach((n) => n.remove());
        return d.textContent; }))"""
    )


def copied(page: Any, kind: str) -> str:
    """What the button copies, pressed by keyboard."""
    tab_to(page, f"#copy-{kind}")
    page.keyboard.press("Enter")
    page.get_by_text(f"{kind} copied").wait_for()
    return page.evaluate("window.copied")


def test_a_view_made_by_keyboard_is_another_readers_by_its_address(page: Any, browser: Any) -> None:
    phone = page.viewport_size["width"] < 760
    tab_to(page, "#tab-overview")
    page.keyboard.press("ArrowRight")
    if phone:
        tab_to(page, "#filter-box > summary")
        page.keyboard.press("Enter")
    tab_to(page, "#search")
    page.keyboard.type("beta, GAMMA")
    tab_to(page, "#pick-Dataset")
    page.keyboard.press("s")
    assert page.evaluate("document.activeElement.id") == "pick-Dataset"  # drawn anew, and still held
    tab_to(page, "#pick-Task-dataset-protocol")
    page.keyboard.press("ArrowDown")
    tab_to(page, "[data-column=model]")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    mine, title = shown(page), page.locator("#view h2").inner_text()
    assert [row[1] for row in mine] == ["gamma_g", "beta-l"] and "on scenes" in title
    other = browser.new_page(viewport={"width": 800, "height": 800})
    other.goto(page.url)
    assert shown(other) == mine and other.locator("#view h2").inner_text() == title
    assert other.locator("#search").input_value() == "beta, GAMMA" and other.locator("#strange").count() == 0
    assert other.locator("[role=tab][aria-selected=true]").inner_text() == "One task"
    assert other.locator("th[aria-sort=descending]").inner_text().startswith("Model")
    other.close()
    if phone:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_what_is_shown_is_what_is_copied(page: Any) -> None:
    page.evaluate("location.hash = '#overview?suite=scenes+%C2%B7+fast&sort=model'")
    page.locator("th[aria-sort=ascending] >> text=Model").wait_for()
    rows = shown(page)
    table = list(csv.reader(io.StringIO(copied(page, "CSV"))))
    names = [row[0] for row in rows]
    assert [row[0] for row in table[1:]] == ["'=1+1", *names[1:], "chance"] and names[0] == "=1+1"
    values = [i for i, name in enumerate(table[0]) if i > 1 and not name.endswith("±")]
    assert [[row[i] for i in values] for row in table[1:-1]] == [row[2:] for row in rows]
    assert [table[0][i] for i in values] == [
        "Semantic segmentation, linear probe, scenes mIoU % ↑", "Monocular depth, scenes RMSE m ↓",
        "Image classification, kNN and linear, scenes kNN top-1 % ↑",
    ]  # fmt: skip
    markdown = copied(page, "Markdown").splitlines()
    assert len([line for line in markdown if line.startswith("|")]) == len(rows) + 3
    assert any(line.startswith("| gamma\\_g |") for line in markdown) and "| *chance* |" in "".join(markdown)
    assert "**" in "".join(markdown) and "newest row of 2026-11-24" in markdown[-1] and "densebench" in markdown[-1]
    latex = copied(page, "LaTeX")
    assert "gamma\\_g &" in latex and "\\textbf{" in latex and latex.count("\\\\\n") == len(rows) + 2
    assert "\\begin{tabular}{lrrrr}" in latex and "\\% $\\uparrow$" in latex and "↑" not in latex


def test_the_parts_of_an_address_that_this_page_has_not_are_named(browser: Any, results: Path) -> None:
    made = browser.new_page()
    made.goto(f"file://{results}/leaderboard.html#board?task=flow&q=beta&board=depth/scenes/gone&sort=nothing,down")
    said = made.locator("#strange").inner_text()
    assert "task flow" in said and "board depth/scenes/gone" in said
    assert [row[1] for row in shown(made)] == ["beta-l"]
    assert made.locator("th[aria-sort]").count() == 1  # the usual order stands in for a column that is not there
    made.goto(f"file://{results}/leaderboard.html#papers")
    assert made.locator("#strange").count() == 0 and "Published" in made.locator("#view thead").inner_text()
    made.close()


def test_every_view_is_restored_by_its_own_address(browser: Any, results: Path) -> None:
    made, other = browser.new_page(), browser.new_page()
    made.add_init_script(KEPT)
    made.goto(f"file://{results}/leaderboard.html")
    other.goto(f"file://{results}/leaderboard.html")
    for view in ("overview", "board", "cost", "classes", "samples", "protocols", "papers"):
        made.locator(f"#tab-{view}").click()
        for name in ("Model-A", "Cost", "Suite-and-protocol", "Task-dataset-protocol"):
            if (found := made.locator(f"#pick-{name}")).count():
                found.select_option(index=found.locator("option").count() - 1)
        if made.locator("th button.sort").count():
            made.locator("th button.sort").last.click()
        other.evaluate("hash => { location.hash = hash; }", made.evaluate("location.hash"))
        other.locator(f"#tab-{view}[aria-selected=true]").wait_for()
        assert other.url == made.url and other.locator("#view").inner_html() == made.locator("#view").inner_html(), view
        if view == "protocols":
            made.locator("details.protocol summary").first.click()
        made.locator(".copy button:text('CSV'):visible").first.click()
        table = list(csv.reader(io.StringIO(made.evaluate("window.copied"))))
        shown_rows = (
            made.locator("#view .scroll:visible").first.locator("tbody tr:not(:has(.divider)), tfoot tr").count()
        )
        assert len(table) == shown_rows + 1 and len({len(row) for row in table}) == 1, view
    measured = [i for i, name in enumerate(table[0]) if name.startswith("Measured here")]
    assert [table[0][i] for i in measured] == ["Measured here", "Measured here low", "Measured here high"]
    (line,) = [row for row in table if row[0] == "Beta L"]
    low, value, high = (float(line[i]) for i in (measured[1], measured[0], measured[2]))
    assert low < value < high
    made.close()
    other.close()


def test_filters_offer_what_has_rows_and_nothing_else(browser: Any, results: Path) -> None:
    made = browser.new_page()
    made.goto(f"file://{results}/leaderboard.html")

    def offered(name: str) -> list[str]:
        return made.locator(f"#pick-{name} option").all_inner_texts()[1:]

    assert offered("Dataset") == ["ade20k", "scenes"] and "Surface normals" not in offered("Task")
    made.locator("#pick-Dataset").select_option("ade20k")
    assert offered("Task") == ["Semantic segmentation, linear probe"] and offered("Family") == ["beta", "gamma_g"]
    made.locator("#pick-Family").select_option("beta")
    assert made.get_by_label("Suite and protocol").locator("option").all_inner_texts() == ["datasets · paper"]
    assert "beta-l" in shown(made)[0][0]
    made.locator("#tab-papers").click()
    made.reload()
    assert made.locator("#strange").count() == 0 and "family=beta" in made.url  # kept for the views that have it
    made.locator("#tab-overview").click()
    made.get_by_role("button", name="Reset").click()
    made.locator("#tab-classes").click()
    assert offered("Task") == ["Semantic segmentation, linear probe"]
    made.locator("#tab-papers").click()
    assert offered("Dataset") == ["ade20k", "nyuv2"] and made.locator("#pick-Family").count() == 0
    made.close()


def test_without_a_clipboard_the_text_stands_there_selected(browser: Any, results: Path) -> None:
    made = browser.new_page()
    made.add_init_script("navigator.clipboard.writeText = () => Promise.reject(new Error('no'))")
    made.goto(f"file://{results}/leaderboard.html#board")
    made.locator("#copy-CSV").click()
    area = made.locator(".copy textarea")
    assert area.input_value().startswith("#,Model,")
    assert made.evaluate("getSelection().toString()") == area.input_value() or made.evaluate(
        "document.activeElement.selectionEnd"
    ) == len(area.input_value())
    made.close()


def test_the_page_says_its_version_and_where_metrics_disagree(browser: Any, results: Path, tmp_path: Path) -> None:
    file = write_row(tmp_path, "a", "depth", 0.8) / "result.json"
    write_row(tmp_path, "b", "depth", 0.5)
    for path in (file, next((tmp_path / "b" / "depth" / "scenes").glob("*/result.json"))):
        data = json.loads(path.read_text())
        data["metrics"]["RMSE twice"] = {**data["metrics"]["RMSE"], "higher_is_better": True}
        path.write_text(json.dumps(data))
    build(tmp_path)
    made = browser.new_page()
    made.goto(f"file://{tmp_path}/leaderboard.html#board")
    assert "Ordered by RMSE, which disagrees with RMSE twice on 1 of 1 pairs" in made.locator("#disagrees").inner_text()
    assert "newest row of 2026-11-24" in made.locator("#footer").inner_text()
    made.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light")])
def test_what_changes_of_a_preset_are_worth_is_a_picture_and_a_table(
    browser: Any, tmp_path: Path, width: int, scheme: str
) -> None:
    pairs = [changed_preset(tmp_path, *skills) for skills in (("a", 0.5, 0.8), ("b", 0.6, 0.6))]
    told = PublishedNumber("A", "a", TASK, "scenes", "R@1", pairs[0][1].main.value, "a paper", "")
    found = [e for base, row in pairs for e in effects([base], [row], [told], 100)]
    keep(tmp_path, found)
    build(tmp_path)
    made = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    made.goto(f"file://{tmp_path}/leaderboard.html")
    tab_to(made, "#tab-overview")
    made.keyboard.press("ArrowLeft")  # round to the last one
    assert made.evaluate("document.activeElement.id") == "tab-sensitivity"
    assert "holds in 0 of 1 changes" in made.locator("#view").inner_text()
    (row,) = made.locator("#view table tbody tr").all_inner_texts()
    assert "cls = last" in row and "turns" in row and "brings inside the published" in row
    assert f"{found[0].delta:+.2f}".replace("-", "−") in row
    bars = made.locator("#view canvas")
    assert bars.count() == 1 and bars.bounding_box()["width"] <= width
    assert made.evaluate("document.documentElement.scrollWidth") <= width
    made.locator("#tab-overview").click()
    assert len(made.locator("#view table tbody tr").all_inner_texts()) == 2  # the preset's rows alone
    made.close()


TASK = "text_to_image_retrieval"


def changed_preset(results: Path, model: str, before: float, after: float) -> tuple[Row, Row]:
    """Rows of a model by `paper` on scenes, and with the last CLS."""
    base = read_row(write_row(results, model, TASK, before, protocol_name="paper"))
    fields = {name: as_json(entry) for name, entry in base.data.protocol.fields.items()}
    fields["cls"] = {"value": "last", "status": "confirmed", "source": "set by the user"}
    return base, read_row(
        write_row(results / "sensitivity", model, TASK, after, protocol_name="paper+set", fields=fields)
    )
