"""Heads: what is fitted on frozen features, or searched among them."""
