"""Does an encoder keep its contract? `check_encoder` finds out in seconds, before any dataset is touched."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmark.check import layers, measured, numbers, pooled
from benchmark.check.findings import CheckReport, Finding, attempt
from benchmark.check.golden import UNSEEN, Golden, golden_findings
from benchmark.check.image_side import ImageChecks
from benchmark.check.labelled import Labelled
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
    features: Golden | None = None,
) -> CheckReport:
    """Findings about `encoder`; `report.ok` when none failed. Nothing it does raises.

    `cheap` leaves out what needs more than a few forwards: odd sizes, number types, speed and the chance-level alarms.
    `reload` builds the encoder in another dtype, `labelled` is data for the alarms, `golden` known token ids
    (`{text, ids}`), `features` a golden file; each adds its check.
    """
    started = time.perf_counter()
    image = ImageChecks(encoder, device)
    report = CheckReport(encoder.card.name)

    def add(name: str, check: Callable[[], Any]) -> None:
        report.findings += attempt(name, check)

    add("shapes", image.shapes)
    if report.ok:  # the rest would only repeat a wrong shape
        add("extreme images", image.extremes)
        add("deterministic", image.deterministic)
        add("batch 1 = batch N", image.batch_invariant)
        add("grid orientation", image.orientation)
    if report.ok:  # and these a map that is mixed up
        add("pooled vector", lambda: pooled.pooled(image))
        add("layer order", lambda: layers.layer_order(image))
        add("last layer", lambda: layers.last_layer(image))
        add("final norm", lambda: layers.final_norm(image))
        add("text patches and cls", lambda: pooled.text_patch_sign(image))
        add("number type", lambda: numbers.number_type(image))
        add("pixel range", lambda: numbers.pixel_range(image))
        add("wide pictures", lambda: numbers.wide_pictures(image))
    if encoder.card.has_text:
        if isinstance(encoder, TextEncoder):
            text = TextChecks(encoder, golden)
            add("text rows", text.rows)
            add("padding invariance", text.padding)
            add("golden tokens", text.tokens)
        else:
            report.findings.append(Finding("text rows", False, "absent", "has_text is set, encode_text missing"))
    if features is not None:
        add("golden features", lambda: golden_findings(image, features))
    elif not cheap:
        report.findings.append(Finding("golden features", True, "none", UNSEEN))
    if not cheap and report.ok:
        add("odd sizes", image.odd_sizes)
        add("other sizes", image.other_sizes)
        if labelled is not None:
            known = Labelled(image, labelled)
            add("above chance", known.chance)
            add("zero-shot", known.zero_shot)
            add("pixels as they are", known.inputs)
        if reload is not None:
            add("number types", lambda: measured.dtype_drift(image, reload))
        add("speed", lambda: measured.speed(image))
    report.seconds = time.perf_counter() - started
    return report
