#!/bin/sh
# Pillow 13 resizes an upright picture along its columns first; Pillow 12 and before always began with the rows. Pillow
# rounds to 8 bits between the two passes, so the same JPEG, size and filter give other pixels: an encoder's input, and
# every number made with it, depend on Pillow's major version for portraits and not for landscapes.
# Guessed: Image.resize gives the same bytes for years; a version that is quicker has the same pixels.
#
# Seen (Python 3.11, numpy 2.4.6, a smooth picture with noise, bicubic, 640 x 427 and 427 x 640 (height x width) to 224 x 224):
#   pillow 12.0.0   upright: rows first      lying: rows first
#   pillow 13.0.0   upright: columns first   lying: rows first
#   upright: 12 and 13 differ in a part of the pixels, by a level or more; lying: equal
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
cat > "$place/try.py" <<'PY'
import sys

import numpy as np
import PIL
from PIL import Image

rng = np.random.default_rng(0)
for name, height, width in (("upright", 640, 427), ("lying", 427, 640)):
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 9 + c) * np.cos(y / 7) for c in range(3)], -1)
    picture = Image.fromarray(np.clip(128 + 90 * waves + rng.normal(0, 12, waves.shape), 0, 255).astype(np.uint8))
    whole = np.asarray(picture.resize((224, 224), Image.BICUBIC))
    rows = np.asarray(picture.resize((224, height), Image.BICUBIC).resize((224, 224), Image.BICUBIC))
    columns = np.asarray(picture.resize((width, 224), Image.BICUBIC).resize((224, 224), Image.BICUBIC))
    first = "rows" if np.array_equal(whole, rows) else "columns" if np.array_equal(whole, columns) else "neither"
    print(PIL.__version__, name, first)
    np.save(f"{sys.argv[1]}/{PIL.__version__}-{name}.npy", whole)
PY
for version in 12.0.0 13.0.0; do
  "$place/venv/bin/pip" install -q "numpy==2.4.6" "pillow==$version"
  "$place/venv/bin/python" "$place/try.py" "$place"
done > "$place/said"
cat "$place/said"
diff "$place/said" - <<'SEEN'
12.0.0 upright rows
12.0.0 lying rows
13.0.0 upright columns
13.0.0 lying rows
SEEN
"$place/venv/bin/python" - "$place" <<'PY'
import sys

import numpy as np

for name in ("upright", "lying"):
    a, b = (np.load(f"{sys.argv[1]}/{v}-{name}.npy").astype(int) for v in ("12.0.0", "13.0.0"))
    print(f"{name}: {100 * (a != b).mean():.1f} % of the values differ, by {abs(a - b).max()} at most")
    assert (a != b).any() == (name == "upright")
PY
