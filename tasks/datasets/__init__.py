"""Readers of data sets in the layouts that their owners ship, and the catalogue."""
