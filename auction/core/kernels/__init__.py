"""The only home of numba. tests/test_kernel.py and tests/test_sieve.py hold each kernel to a slow twin, bit by bit."""

import numpy as np

from auction.core.kernels.clear import COLUMNS, RESULTS, SETTLEMENTS, clear
from auction.core.kernels.fold import KERNEL_PAYS, fold
from auction.core.kernels.sieve import LISTINGS_HEAD, SHEET_HEAD, sift
from auction.core.kernels.survey import room, survey

__all__ = ["clear", "sift", "survey", "warm_up"]


def warm_up() -> None:
    """Run every kernel once, so that whatever is still to be loaded or compiled is, before anybody waits for it."""
    nothing, cells = np.empty(0, np.uint8), np.empty(room(0, 0), np.int64)
    assert survey(nothing, 0, 0, cells) == len(cells)
    assert sift(nothing, nothing, cells, np.zeros(SHEET_HEAD, np.int64), nothing, np.zeros(LISTINGS_HEAD, np.int64),
                np.empty(0, np.int64)) == 0  # fmt: skip
    fold(" " * KERNEL_PAYS)
    out = np.empty(RESULTS + SETTLEMENTS, np.int64)
    clear(np.zeros(COLUMNS, np.int64), 1, 0, -1, 0, out)
    assert out[0] == 0
