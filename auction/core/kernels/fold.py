# FNV-1a over bytes, for ids that may be as long as the message they came in: the fast twin of model/draws.py.
#
# The product of two 64-bit numbers is made of halves of 32 bits, so that interpreted and compiled say the same without
# a warning: FNV's prime is 2**40 + 435, and a half times 435 or 2**8 fits an int64.

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from auction.core.kernels.wire import BYTES, INT, PAIR
from auction.model.draws import FNV_OFFSET, fnv1a64, framed

_HALF = 0xFFFFFFFF


@njit(PAIR(BYTES, INT, INT), cache=True)
def _folded(data: NDArray[np.uint8], high: int, low: int) -> tuple[int, int]:  # pragma: no cover
    for byte in data:
        low ^= int(byte)
        product = low * 435
        high = (high * 435 + (low << 8) + (product >> 32)) & _HALF
        low = product & _HALF
    return high, low


# Bytes from which on a call of the kernel, which has its price, costs less than a walk in Python.
KERNEL_PAYS = 12


def fold(part: str, onto: int = FNV_OFFSET) -> int:
    """Fold a text as model.draws.fold does."""
    data = framed(part)
    if len(data) < KERNEL_PAYS:
        return fnv1a64(data, onto)
    high, low = _folded(np.frombuffer(data, np.uint8), onto >> 32, onto & _HALF)
    return int(high) << 32 | int(low)
