"""A paper's tables beside our measured rows: what agrees, what differs, what was not measured, what is not known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.compare.published import elsewhere_line, tools
from benchmark.compare.report import number, table
from benchmark.errors import UsageError
from benchmark.rows.published import MeasuredElsewhere, PublishedNumber, measured_elsewhere, published_numbers
from benchmark.rows.row import Row, read_all
from benchmark.system.escaping import escape

# What a name covers: the published models whose ids start so.
PAPERS = {"tipsv2": ("tipsv2-",), "tips": ("tips-",), "siglip2": ("siglip2-",), "dinov2": ("dinov2-",)}
PRESET = "paper"
SLIDING = "notebook"  # zero-shot segmentation where a table says it slid a window: its protocol is public
# Papers whose own protocol is public and a preset: their tables are by that one.
OWN = {"arXiv:2304.07193": "dinov2", "arXiv:2404.08636": "probe3d", "arXiv:2508.10104": "dinov3"}
HEADER = (
    "model",
    "task",
    "metric",
    "source",
    "published",
    "elsewhere",
    "measured",
    "95 % interval",
    "Δ",
    "protocol",
    "state",
)


@dataclass(frozen=True)
class Line:
    """One published number and the measured row of the same model, dataset and metric, if there is one."""

    published: PublishedNumber
    row: Row | None
    elsewhere: tuple[MeasuredElsewhere, ...] = ()  # by others, of the same model, dataset and metric

    @property
    def state(self) -> str:
        """not measured / inside / outside the measured interval."""
        if self.row is None:
            return "not measured"
        low, high = self.row.data.metrics[self.published.metric].ci95
        where = "inside the interval" if low <= self.published.value <= high else "outside the interval"
        if self.row.data.protocol.name != preset_of(self.published):
            where += ", another protocol"
        where += ", a part of the data" if self.row.data.partial else ""
        return f"{where}, stale: {self.row.stale}" if self.row.stale else where

    @property
    def missing(self) -> bool:
        """Whether there is no row, or a stale one alone, by the preset that stands for the published number."""
        return self.row is None or bool(self.row.stale) or self.row.data.protocol.name != preset_of(self.published)


@dataclass(frozen=True)
class Reproduction:
    """Every published number of a paper's models, in the paper's order, and the doubtful protocol fields."""

    name: str
    lines: tuple[Line, ...]
    doubts: tuple[tuple[str, str, str, str], ...]  # task, field, status, source

    @property
    def presets(self) -> tuple[str, ...]:
        """Those that stand for its numbers, in the order they are met."""
        return tuple(dict.fromkeys(preset_of(line.published) for line in self.lines))

    @property
    def measured(self) -> int:
        return sum(line.row is not None for line in self.lines)


def reproduce(name: str, results: Path) -> Reproduction:
    """The published numbers of `name` beside the rows under `results`; the numbers come with densebench, unless
    `results` has a published.csv of its own. Raises UsageError for an unknown paper."""
    if name not in PAPERS:
        raise UsageError(f"no published tables of {name!r}. There are: {', '.join(PAPERS)}")
    numbers = [p for p in published_numbers(results) if p.model_id.startswith(PAPERS[name])]
    if not numbers:
        raise UsageError(f"{results / 'published.csv'} holds no number of {name}. Give --results with that file")
    rows, _ = read_all(results)
    others = measured_elsewhere(results)
    lines = tuple(
        Line(
            p,
            _measured(p, rows),
            tuple(e for e in others if (e.model, e.unit, e.metric) == (p.model_id, p.unit, p.metric)),
        )
        for p in numbers
    )
    return Reproduction(name, lines, _doubts({(p.task, preset_of(p)) for p in numbers}))


def preset_of(number: PublishedNumber) -> str:
    """The preset that stands for a published number."""
    slid = number.task == "zero_shot_segmentation" and "sliding" in number.note and "simple" not in number.note
    if number.task == "zero_shot_segmentation" and number.model_id.endswith("-dinotxt"):
        return "dinov3"  # whichever paper quotes it: arXiv:2508.10104 has the same numbers by its own protocol
    own = next((preset for paper, preset in OWN.items() if number.source.startswith(paper)), PRESET)
    return SLIDING if slid else own


def missing(found: Reproduction, models: Sequence[str] = ()) -> list[tuple[str, str, list[str]]]:
    """(model, preset, units) still to be run, of `models` or of all, in the paper's order."""
    units: dict[tuple[str, str], dict[str, None]] = {}
    for line in found.lines:
        p = line.published
        if line.missing and (not models or p.model_id in models):
            units.setdefault((p.model_id, preset_of(p)), {})[p.unit] = None
    return [(model, preset, list(words)) for (model, preset), words in units.items()]


def _measured(number: PublishedNumber, rows: Sequence[Row]) -> Row | None:
    """The row to set beside `number`: that of its preset where there is one; never one made with --limit.

    Of several, the one whose folder says least beside the preset: seed 0, the default dtype, torch.
    """
    found = [
        r
        for r in rows
        if r.model == number.model_id
        and r.unit == number.unit
        and number.metric in r.data.metrics
        and not r.data.task.limit
    ]
    own = preset_of(number)
    return min(
        found,
        key=lambda r: (
            r.data.protocol.name != own,
            bool(r.stale),
            bool(r.data.partial),
            len(r.folder.name),
            r.folder.name,
        ),
        default=None,
    )


def _doubts(used: set[tuple[str, str]]) -> tuple[tuple[str, str, str, str], ...]:
    """The fields that nobody has confirmed, of each (task, preset); tables of another preset than `paper` name it."""
    from benchmark.protocol import load_protocol, presets, variants
    from benchmark.registry import load_task, protocol_file
    from benchmark.registry import tasks as registered

    out = []
    for task in registered():
        path = protocol_file(task)
        for preset in sorted(preset for name, preset in used if name == task and preset in presets(path)):
            for dataset in (None, *variants(path, preset)):
                protocol = load_protocol(task, load_task(task).schemas, path, preset, None, dataset)
                where = (f"{task}/{dataset}" if dataset else task) + ("" if preset == PRESET else f" ({preset})")
                for field in protocol.not_confirmed():
                    origin = protocol.origins[field]
                    out.append((where, field, origin.status, origin.source))
    return tuple(out)


def cells(line: Line) -> tuple[str, ...]:
    """One table row, in the order of HEADER."""
    p, others = line.published, tools(line.elsewhere)
    if line.row is None:
        return (p.model, p.unit, p.metric, p.source, f"{p.value:g}", others, "–", "", "", "", line.state)
    m = line.row.data.metrics[p.metric]
    measured, low, high = (number(v, m.unit) for v in (m.value, *m.ci95))
    delta = number(m.value - p.value, m.unit, signed=True)
    label = line.row.folder.name  # the preset and its hash, and a seed, dtype or backend that is not the default
    told = (p.model, p.unit, p.metric, p.source, f"{p.value:g}", others)
    return (*told, measured, f"[{low}, {high}]", delta, label, line.state)


def elsewhere_lines(found: Reproduction) -> list[str]:
    """What is said of each number that others measured: by what protocol, and which fields of the preset differ."""
    return [elsewhere_line(e) for e in dict.fromkeys(e for line in found.lines for e in line.elsewhere)]


def summary(found: Reproduction) -> str:
    """One line that says plainly how much of the paper has been measured."""
    total = len(found.lines)
    if not found.measured:
        return f"{found.name}: none of {total} published numbers has been measured, so nothing is confirmed or in doubt"
    inside = sum(line.state == "inside the interval" for line in found.lines)
    return (
        f"{found.name}: {found.measured} of {total} published numbers measured, {inside} of them inside the measured "
        f"95 % interval under the {presets_of(found)}; {len(found.doubts)} protocol fields are not confirmed"
    )


def presets_of(found: Reproduction) -> str:
    """ "paper preset", "paper and notebook presets"."""
    return " and ".join(found.presets) + (" preset" if len(found.presets) == 1 else " presets")


def markdown(found: Reproduction) -> str:
    """The whole comparison."""
    lines = [f"# {escape(summary(found))}", "", *table(HEADER, [cells(line) for line in found.lines]), ""]
    lines += [f"## Fields of the {presets_of(found)} that are not confirmed", ""]
    lines += table(("task", "field", "status", "source"), found.doubts) if found.doubts else ["None is listed."]
    if said := elsewhere_lines(found):
        lines += ["", "## Measured by others", "", *(f"- {escape(line)}" for line in said)]
    return "\n".join(lines) + "\n"
