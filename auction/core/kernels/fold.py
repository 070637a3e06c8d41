# FNV-1a over bytes, for ids that may be as long as the message they came in: the fast twin of model/draws.py.
#
# The product of two 64-bit numbers is made of halves of 32 bits, so that interpreted and compiled say the same without
# a warning: FNV's prime is 2**40 + 435, and a half times 435 or 2**8 fits an int64.

from __future__ import annotations

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from auction.model.draws import FNV_OFFSET, framed

_HALF = 0xFFFFFFFF
_BYTES = types.Array(types.uint8, 1, "C", readonly=True)
_PAIR = types.Tuple((types.int64, types.int64))  # type: ignore[no-untyped-call]  # numba has no types for it


@njit(_PAIR(_BYTES, types.int64, types.int64), cache=True)
def _folded(data: NDArray[np.uint8], high: int, low: int) -> tuple[int, int]:  # pragma: no cover
    for byte in data:
        low ^= int(byte)
        product = low * 435
        high = (high * 435 + (low << 8) + (product >> 32)) & _HALF
        low = product & _HALF
    return high, low


def fold(*parts: str, onto: int = FNV_OFFSET) -> int:
    """Fold texts as model.draws.fold does."""
    data = np.frombuffer(b"".join(map(framed, parts)), np.uint8)
    high, low = _folded(data, onto >> 32, onto & _HALF)
    return int(high) << 32 | int(low)
