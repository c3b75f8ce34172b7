#!/bin/sh
# The same for any CI: exit code 3 is a regression; 1 a checkpoint that could not be scored or compared with the
# whole baseline, or no checkpoint at all; 0 neither.
#   sh regression.sh CHECKPOINTS [MODEL] [SUITE] [BASELINE]       SUITE: a name, or a TOML file of your own
# Reports for the CI: bench-watch/junit.xml and bench-watch/summary.md.
set -eu
checkpoints=$1
model=${2:-tipsv2-mini}
suite=${3:-scenes}
baseline=${4:-}

set -- watch "$checkpoints" --model "$model" --suite "$suite" --out bench-watch --once
if [ -n "$baseline" ]; then set -- "$@" --baseline "$baseline"; fi
exec bench "$@"
