# The wire format of protobuf, for kernels that read messages where they lie.
#
# Whoever calls has had the bytes read by protobuf before, so that they are well-formed: nothing here checks a bound.

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from auction.model import money

VARINT, I64, LEN, GROUP, GROUP_END, I32 = 0, 1, 2, 3, 4, 5
INT32_MAX: Final = 2**31 - 1

# Messages arrive as bytes, which nobody may write to.
BYTES = types.Array(types.uint8, 1, "C", readonly=True)
CELLS, DOUBLES = types.int64[::1], types.float64[::1]
KEPT_CELLS = types.Array(types.int64, 1, "C", readonly=True)
INT, DOUBLE, BOOL, NONE = types.int64, types.float64, types.boolean, types.void
PAIR = types.Tuple((types.int64, types.int64))  # type: ignore[no-untyped-call]  # numba has no types for it

near_nanos = njit(INT(DOUBLE), cache=True, inline="always")(money.near_nanos)


@njit(PAIR(BYTES, INT), cache=True, inline="always")
def varint(data: NDArray[np.uint8], at: int) -> tuple[int, int]:  # pragma: no cover
    """Read a varint; give its 64 bits, signed, and the place behind it."""
    number: Any = np.int64(data[at] & 127)  # an int of 64 bits, to mypy not an int
    shift = 7
    while data[at] & 128:
        at += 1
        number |= np.int64(data[at] & 127) << shift
        shift += 7
    return number, at + 1


@njit(INT(BYTES, INT, INT), cache=True)
def behind(data: NDArray[np.uint8], at: int, wire_type: int) -> int:  # pragma: no cover
    """Give the place behind the value of a field, which may be a group."""
    depth = 0
    while True:
        if wire_type == VARINT:
            _, at = varint(data, at)
        elif wire_type == LEN:
            size, at = varint(data, at)
            at += size
        elif wire_type == GROUP:
            depth += 1
        elif wire_type == GROUP_END:
            depth -= 1
        else:
            at += 8 if wire_type == I64 else 4
        if not depth:
            return at
        key, at = varint(data, at)
        wire_type = key & 7


@njit(INT(BYTES, INT), cache=True, inline="always")
def double_bits(data: NDArray[np.uint8], at: int) -> int:  # pragma: no cover
    """Read the eight bytes of a double as the int64 of the same bits."""
    bits: Any = np.int64(0)
    for k in range(8):
        bits |= np.int64(data[at + k]) << (8 * k)
    return int(bits)
