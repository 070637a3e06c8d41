# An ad server's request, as far as the rules of an auction read it. The rest stays in the message bytes.

from __future__ import annotations

from bisect import bisect_right
from enum import IntFlag
from heapq import heappop, heappush

import msgspec

from auction.model.money import CpmMicros


class Media(IntFlag):
    """The formats an impression can be sold in; one impression may offer several."""

    BANNER = 1
    VIDEO = 2
    AUDIO = 4
    NATIVE = 8


# A format by its number in the standard's list of markup types, which is also a bid's `mtype`.
BANNER, VIDEO, AUDIO, NATIVE = 1, 2, 3, 4


# Durations are an int32 on the wire: an open range ends here.
_SECONDS_MIN, _SECONDS_MAX = -(2**31), 2**31 - 1

# (least, most, floor), seconds inclusive and None for open.
Row = tuple[int | None, int | None, CpmMicros]


class Timed(msgspec.Struct, frozen=True, gc=False):
    """Floors by duration: rows of (least, most, floor), seconds inclusive and None for open; a floor per second.

    `fine`: some of them was sent finer than a micro, and stands here rounded UP. `begins` and `highest` are made of the
    rows: where the highest floor changes, in order, and what it is from there on.
    """

    rows: tuple[Row, ...]
    rate: CpmMicros | None
    fine: bool
    begins: tuple[int, ...] = ()
    highest: tuple[CpmMicros | None, ...] = ()

    def __post_init__(self) -> None:
        # A request has room for tens of thousands of rows, and an auction for as many bids: going through the rows for
        # each bid would take the product of both.
        begins, highest = _steps(self.rows)
        msgspec.structs.force_setattr(self, "begins", begins)
        msgspec.structs.force_setattr(self, "highest", highest)

    def row(self, seconds: int) -> CpmMicros | None:
        """Give the highest floor of the ranges that a duration is in; None where it is in none."""
        step = bisect_right(self.begins, seconds) - 1
        return self.highest[step] if step >= 0 else None


def _steps(rows: tuple[Row, ...]) -> tuple[tuple[int, ...], tuple[CpmMicros | None, ...]]:
    opening = sorted(
        (_SECONDS_MIN if least is None else least, _SECONDS_MAX if most is None else most, floor)
        for least, most, floor in rows
    )
    highest: list[CpmMicros | None] = []
    begins = sorted({least for least, _, _ in opening} | {most + 1 for _, most, _ in opening})
    opened: list[tuple[int, int]] = []  # (-floor, most), so that the highest floor comes first
    number = 0
    for begin in begins:
        while number < len(opening) and opening[number][0] <= begin:
            heappush(opened, (-opening[number][2], opening[number][1]))
            number += 1
        while opened and opened[0][1] < begin:
            heappop(opened)
        highest.append(CpmMicros(-opened[0][0]) if opened else None)
    return tuple(begins), tuple(highest)


class Length(msgspec.Struct, frozen=True, gc=False):
    """How long a creative may be, in seconds: one of `exact`, or `least` to `most` (None: open). `pod`: it must say."""

    least: int
    most: int | None
    exact: frozenset[int]
    pod: bool


class Format(msgspec.Struct, frozen=True, gc=False):
    """What one format of an impression asks of a creative.

    `attributes` are those blocked. A banner states `sizes`, and `ratios` as (wratio, hratio, wmin); none of either: any
    size. Video and audio may limit the `length` and state floors by it.
    """

    attributes: frozenset[int]
    sizes: frozenset[tuple[int, int]] = frozenset()
    ratios: tuple[tuple[int, int, int], ...] = ()
    length: Length | None = None
    timed: Timed | None = None


class Deal(msgspec.Struct, frozen=True, gc=False):
    """A deal of an impression. `floor` None: the deal states none (an explicit 0 is one); `at` 0: the request's.

    `place` is its place in the request's list, `fine` as for Timed. `advertisers` are domains in lower case, empty:
    any; `seats` likewise.
    """

    place: int
    id: str
    floor: CpmMicros | None
    currency: str
    at: int
    seats: frozenset[str]
    advertisers: frozenset[str]
    timed: Timed | None
    fine: bool


class Imp(msgspec.Struct, frozen=True, gc=False):
    """One impression; `floor` is micros of `currency`, UP; `tagid` names its placement, empty for none.

    `formats` by number, `media` the same as flags, `only` the number where there is one, else 0. `size` is "300x250"
    where exactly one is asked, else empty. `fine`: as for Timed, of any floor here.
    """

    id: str
    tagid: str
    media: int
    only: int
    formats: dict[int, Format]
    size: str
    secure: bool
    floor: CpmMicros
    currency: str
    private_auction: bool
    deals: dict[str, Deal]
    fine: bool


class Blocks(msgspec.Struct, frozen=True, gc=False):
    """What a request lets no creative be. Domains and languages in lower case.

    `languages` is wlang and `tags` wlangb, the only ones allowed; `speak`: either is given.
    """

    advertisers: frozenset[str]
    categories: frozenset[str]
    taxonomy: int
    apps: frozenset[str]
    languages: frozenset[str]
    tags: tuple[str, ...]
    speak: bool


class BidRequest(msgspec.Struct, frozen=True, gc=False):
    """What is auctioned; `at` is 1 or 2, `tmax_ms` 0 for absent, `cur` empty for absent.

    `seats` are the only ones allowed (empty: any), `blocked_seats` those that are not. `blocks` None: nothing is.
    """

    id: str
    at: int
    tmax_ms: int
    cur: tuple[str, ...]
    imps: tuple[Imp, ...]
    seats: frozenset[str]
    blocked_seats: frozenset[str]
    blocks: Blocks | None


class Survey(msgspec.Struct, frozen=True, gc=False):
    """A request as bytes without anything that the contract does not name, and where everything stands in them.

    `cells` are int64, as core/kernels/survey.py lays them out.
    """

    body: bytes
    cells: bytes


class Audience(msgspec.Struct, frozen=True, gc=False):
    """Where and on what an ad will be seen, as floor rules name it; empty for unknown."""

    domain: str
    country: str
    device_type: str


class Told(msgspec.Struct, frozen=True, gc=False):
    """Floors of one object of a view, in `currency`: its own, its rows by duration in order, and per second.

    None: as the request has it, or has it not. `ranges` are the durations of rows that the object has not, to be added.
    """

    currency: str
    floor: CpmMicros | None = None
    rows: tuple[CpmMicros, ...] = ()
    rate: CpmMicros | None = None
    ranges: tuple[tuple[int | None, int | None], ...] = ()


# Whose floors they are: an impression's by (row,), a format's by (row, number), a deal's by (row, -1, place).
Whose = tuple[int, ...]
