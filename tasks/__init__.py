"""What is measured: one file for each task, its presets, the data sets."""

PACKAGE_OF = "densebench"  # `benchmark.system.own_packages`: others use this name, too
