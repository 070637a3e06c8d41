# What one peer may cost, and why that much: every bound of the wire, in one place.
#
# There is no clock in a connection. What is bounded per second is counted here and forgotten when whoever owns the
# clock says `tick`, once a second.

from __future__ import annotations

from typing import Final

import msgspec

# A header block as it travels, with its CONTINUATIONs. Twice the largest list, because a list may be sent unpacked.
BLOCK_BYTES_MAX: Final = 32_768

# Frames of one block beyond the first. A list of the largest size fits into two; a proxy with small buffers cuts it
# into eight. More is somebody who never ends it.
CONTINUATIONS_MAX: Final = 8

# Header blocks remembered decoded, and the longest that is worth it. A caller repeats a handful; a hundred distinct
# timeouts make a hundred. Together 64 KiB of keys a connection.
BLOCKS_CACHED: Final = 256
BLOCK_CACHED_BYTES: Final = 256

# Frames that carry nothing (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, RST_STREAM, empty DATA, unknown ones) a second:
# so many for free, which is keepalive and flow control of any real peer, and so many more for each message that came
# or went, because a naive peer answers every DATA frame with two WINDOW_UPDATEs and probes the bandwidth with PINGs.
IDLE_FRAMES_PER_S: Final = 1_000
IDLE_FRAMES_PER_MESSAGE: Final = 8

# Streams a second that a peer opens and takes back before they were answered. An ad server whose every auction comes
# too late takes back all of them, so this is far above that; at 20 us a call it is 2 % of a core.
RESETS_PER_S: Final = 1_000

# Streams that we ended and on which frames may still be under way: they are ignored without an error.
ENDED_REMEMBERED: Final = 1_024

# What waits for a window of the peer to open, all streams of a connection together. A peer that asks and does not read
# is cut off here; a single message may be larger.
QUEUED_BYTES_MAX: Final = 4_194_304

# Ticks without any progress while something waits for the peer's window. No auction's answer is of use to a caller
# that has not read for this long.
STALLED_TICKS_MAX: Final = 10


class Limits(msgspec.Struct, frozen=True):
    """What a connection promises its peer in SETTINGS, and holds it to."""

    streams: int = 4_096
    """Open at once: more than auctions in flight, so that what is too much is refused by whoever can say why."""

    stream_window: int = 262_144
    """Octets on one stream before we have to say go on: one message of usual size arrives without a round trip."""

    connection_window: int = 8_388_608
    """Octets on all streams before we have to say go on: 60 ms of a gigabit, so that distance does not slow it."""

    header_list_bytes: int = 16_384
    """Names and values of one header list, as RFC 9113 counts them: ten times what clients and proxies send."""
