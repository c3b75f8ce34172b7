"""Semantic correspondence in small: pairs of pictures, and points of one that are looked for in the other."""
