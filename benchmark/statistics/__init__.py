"""Intervals and paired tests from stored per-sample statistics, without a second run."""
