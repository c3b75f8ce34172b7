"""What is measured: one file for each task, its presets, the data sets."""
