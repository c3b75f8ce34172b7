"""Training pictures that are near-copies of the pictures an encoder will be scored on."""
