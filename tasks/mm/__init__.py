"""mmsegmentation, mmengine and mmcv as densebench uses them; no other package imports them.

`library` holds the stand-in for mmcv's compiled ops and every name taken from mm*. `protocol` and `schedule` need none
of it, so that presets are read without that import. The rest is reached through `"tasks.mm.x:y"` strings.
"""
