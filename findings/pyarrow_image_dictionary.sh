#!/usr/bin/env bash
# A column of encoded pictures in parquet: pyarrow 26.0.1 puts all of a row group into one dictionary page.
#
# Guess: `dictionary_pagesize_limit` (1 MB by default) makes the writer fall back to plain pages after the first few
#        pictures of 100 kB, all of them different, so that one picture can be read without its neighbours.
# Seen:  the limit is looked at after `write_batch_size` values (1,024 by default). 1,000 pictures of 100 kB are one
#        dictionary page of 100 MB, which a reader has to hold for any one of them. `write_batch_size=8` lets the limit
#        work (2 MB); `use_dictionary=False` writes none.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pyarrow==26.0.1
output=$(FOLDER="$folder" "$folder/venv/bin/python" - <<'PY'
import os

import pyarrow as pa
import pyarrow.parquet as pq

path = os.path.join(os.environ["FOLDER"], "pictures.parquet")
pictures = [os.urandom(100_000) for _ in range(1000)]
table = pa.table({"image": pa.array(pictures, pa.binary())})
for options in ({}, {"write_batch_size": 8}, {"use_dictionary": False}):
    pq.write_table(table, path, compression="none", **options)
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    size = column.data_page_offset - column.dictionary_page_offset if column.has_dictionary_page else 0
    print(options or "defaults", f"dictionary page of {size / 1e6:.0f} MB")
PY
)
echo "$output"
[ "$output" = "defaults dictionary page of 100 MB
{'write_batch_size': 8} dictionary page of 2 MB
{'use_dictionary': False} dictionary page of 0 MB" ]
