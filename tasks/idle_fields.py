"""Fields that make no sense beside another: setting one is an error, not a new hash over the old numbers."""

from __future__ import annotations


def check_view(view: str, view_size: int, crop: int = 0) -> None:
    """Raises ValueError for a size that `view` does not take: `encoder` is the encoder's own transform, as it is."""
    if view == "encoder" and view_size:
        raise ValueError(f"view_size = {view_size} does nothing with view = encoder. Choose another view, e.g. square")
    if view != "short-side" and crop:
        raise ValueError(f"crop = {crop} does nothing with view = {view}. Use view = short-side")


def check_background(background: str, threshold: float) -> None:
    """Raises ValueError for a threshold where the background is a text among others."""
    if background == "text" and threshold:
        raise ValueError(f"threshold = {threshold:g} does nothing with background = text. Use background = threshold")


def check_range(name: str, low: float, high: float) -> None:
    """Raises ValueError for an upper limit `name` that leaves nothing above the lower one; 0 is the data set's own."""
    if high and high <= low:
        raise ValueError(f"{name} = {high:g} is not above {low:g}, where the range begins")
