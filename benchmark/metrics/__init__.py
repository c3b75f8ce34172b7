"""Metrics: per-sample sums that `benchmark.statistics.statistic.Statistic` turns into the field's numbers."""
