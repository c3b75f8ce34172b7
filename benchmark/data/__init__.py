"""Parts of a data set: subsets, what may be missing, what cannot be read."""
