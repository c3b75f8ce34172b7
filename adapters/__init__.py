"""Encoders behind one interface: one file for each family, and the models as data."""
