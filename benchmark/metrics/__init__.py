"""Metrics: per-sample sums that `benchmark.statistic.Statistic` turns into the field's numbers."""
