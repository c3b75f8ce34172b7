"""The embedded dataset: ray-cast scenes with exact ground truth, a stand-in for plumbing and for small training."""

from tasks.scenes.tables import CLASS_NAMES, OBJECTS, STUFF, VERSION

__all__ = ["CLASS_NAMES", "OBJECTS", "STUFF", "VERSION"]
