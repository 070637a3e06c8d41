# How much of one read is taken in until others have their turn.
#
# What octets cost shows only in taking them in: a kilobyte is a piece of a message, or twenty calls. So each portion is
# cut by what the one before it cost, and lasts about as long whatever is in it, on a machine that is slower today too.

from __future__ import annotations

from typing import Final

# Half of what those who answer calls take of a turn of the loop: a caller that sends without end has a third of it.
PORTION_S: Final = 0.000_5

# The least holds some fifteen of the smallest calls, or two auctions; the first eight, since most callers
# are who they should be, and a burst is done with less when it is done at once.
PORTION_BYTES_MIN: Final = 1_024
PORTION_BYTES_FIRST: Final = 4_096
PORTION_BYTES_MAX: Final = 16_384


class Portions:
    """The size of one caller's next portion, in octets."""

    __slots__ = ("size",)

    def __init__(self) -> None:
        self.size = PORTION_BYTES_FIRST

    def took(self, octets: int, seconds: float) -> None:
        """Learn what a portion cost; a short one says little unless it was dear, and no size is more than doubled."""
        if octets == self.size or seconds > PORTION_S:
            fits = int(octets * PORTION_S / seconds) if seconds > 0.0 else PORTION_BYTES_MAX
            self.size = max(PORTION_BYTES_MIN, min(fits, 2 * octets, PORTION_BYTES_MAX))
