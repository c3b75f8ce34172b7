"""`results/leaderboard.{html,csv,md}` from the files under `results` alone; the same files give the same bytes."""

from benchmark.leaderboard.build import Built, build

__all__ = ["Built", "build"]
