"""Intervals and paired tests from stored per-sample statistics, without a second run."""

from benchmark.stats.bootstrap import bootstrap_distribution, interval
from benchmark.stats.multiple import holm, minimum_detectable_effect
from benchmark.stats.paired import PairedResult, mcnemar, paired

__all__ = [
    "PairedResult",
    "bootstrap_distribution",
    "holm",
    "interval",
    "mcnemar",
    "minimum_detectable_effect",
    "paired",
]
