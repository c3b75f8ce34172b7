#!/bin/sh
# sh check.sh ACCEPTED REQUEST COMMENT: are the rows that a pull request brings fit to be accepted? Exit code 1: not all.
# COMMENT, Markdown: what is new or changed, what a reviewer should know, and each changed model paired with its accepted
# rows on the same samples. Rows are data: nothing of a request is run.
set -eu
accepted=$1
request=$2
comment=$3

status=0
bench publish "$request" --check --accepted "$accepted" --markdown "$comment" || status=1
for model in "$request"/*/; do
    name=$(basename "$model")
    if [ ! -d "$accepted/$name" ] || diff -rq "$accepted/$name" "$model" >/dev/null; then continue; fi
    echo >>"$comment"
    if bench compare "$accepted/$name" "$model" --markdown "$comment.pair"; then
        cat "$comment.pair" >>"$comment"
    else
        echo "- $name: its rows cannot be paired with the accepted ones" >>"$comment"
    fi
    rm -f "$comment.pair"
done
exit $status
