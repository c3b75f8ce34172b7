"""What the fields of a preset that nobody has confirmed are worth: each alternative beside the preset, paired."""
