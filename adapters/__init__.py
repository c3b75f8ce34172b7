"""Encoders behind one interface: one file for each family, and the models as data."""

PACKAGE_OF = "densebench"  # `benchmark.system.own_packages`: others use this name, too
