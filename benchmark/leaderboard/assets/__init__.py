"""The page's template, style and scripts, put into one file by `benchmark.leaderboard.page`."""
