"""What `--max-bad` refuses says all that is wrong: files that are missing and files that cannot be read."""

from __future__ import annotations

import numpy as np
import pytest
from small import Noise, made

from benchmark.contracts import LabelData
from benchmark.contracts.progress import silent
from benchmark.data.unreadable import drop_unreadable
from benchmark.errors import DataError


class Damaged(Noise):
    def load(self, index: int) -> np.ndarray:
        if index == 2:
            raise DataError("picture 2 is truncated")
        return super().load(index)


def test_missing_and_unreadable_files_share_one_allowance() -> None:
    data = made(LabelData, images=Damaged(4))
    refused = r"1 missing and 1 unreadable files, --max-bad allows 1\. The first unreadable: picture 2 is truncated"
    with pytest.raises(DataError, match=refused):
        drop_unreadable(data, 1, silent, missing=1)
    with pytest.raises(DataError, match=r"^1 unreadable files, --max-bad allows 0"):
        drop_unreadable(data, 0, silent)
    whole = made(LabelData, images=Noise(4))
    assert drop_unreadable(whole, 1, silent, missing=1) == (whole, [])
