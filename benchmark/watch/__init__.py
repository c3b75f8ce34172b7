"""`bench watch`: the checkpoints of a training run, scored as they come."""
