"""Does an encoder keep its contract? `check_encoder` finds out in seconds, before any dataset is touched."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmark.check import measured
from benchmark.check.findings import CheckReport, Finding, attempt
from benchmark.check.image_side import ImageChecks
from benchmark.check.text_side import TextChecks
from benchmark.contracts import Encoder, LabelData, TextEncoder

__all__ = ["CheckReport", "Finding", "check_encoder"]


def check_encoder(
    encoder: Encoder,
    *,
    cheap: bool = False,
    device: str = "cpu",
    reload: Callable[[str], Encoder] | None = None,
    labelled: LabelData | None = None,
    golden: Mapping[str, Any] | None = None,
) -> CheckReport:
    """Findings about `encoder`; `report.ok` when none failed. Nothing it does raises.

    `cheap` leaves out what needs more than a few forwards: odd sizes, number types, speed and the chance-level alarm.
    `reload` builds the encoder in another dtype, `labelled` is data for the alarm, `golden` known token ids
    (`{text, ids}`); each adds its check.
    """
    started = time.perf_counter()
    image = ImageChecks(encoder, device)
    report = CheckReport(encoder.card.name)

    def add(name: str, check: Callable[[], Any]) -> None:
        report.findings += attempt(name, check)

    add("shapes", image.shapes)
    if report.ok:  # the rest would only repeat a wrong shape
        add("layer order", image.layer_order)
        add("extreme images", image.extremes)
        add("deterministic", image.deterministic)
        add("batch 1 = batch N", image.batch_invariant)
        add("grid orientation", image.orientation)
    if encoder.card.has_text:
        if isinstance(encoder, TextEncoder):
            text = TextChecks(encoder, golden)
            add("text rows", text.rows)
            add("padding invariance", text.padding)
            add("golden tokens", text.tokens)
        else:
            report.findings.append(Finding("text rows", False, "absent", "has_text is set, encode_text missing"))
    if not cheap and report.ok:
        add("odd sizes", image.odd_sizes)
        add("other sizes", image.other_sizes)
        if labelled is not None:
            add("above chance", lambda: measured.chance(image, labelled))
        if reload is not None:
            add("number types", lambda: measured.dtype_drift(image, reload))
        add("speed", lambda: measured.speed(image))
    report.seconds = time.perf_counter() - started
    return report
