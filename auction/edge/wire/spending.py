# What a peer has spent since the last tick of what limits.py grants it a second.

from __future__ import annotations

from auction.edge.wire.frames import Code, ConnectionFault
from auction.edge.wire.limits import IDLE_FRAMES_PER_MESSAGE, IDLE_FRAMES_PER_S, RESETS_PER_S, STALLED_TICKS_MAX
from auction.edge.wire.outbound import Outbound


class Spending:
    """Counts what carries nothing against what does, in both directions; raises ConnectionFault."""

    def __init__(self, outbound: Outbound) -> None:
        self.useful = 0  # frames of data that came
        self._outbound = outbound
        self._idle_frames = 0
        self._resets = 0
        self._stalled_ticks = 0

    def idle_frame(self) -> None:
        """Count a frame that carries nothing; end a connection that has little else to say."""
        self._idle_frames += 1
        if self._idle_frames > IDLE_FRAMES_PER_S + IDLE_FRAMES_PER_MESSAGE * (self.useful + self._outbound.useful):
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "too many frames that carry nothing")

    def reset(self) -> None:
        """Count a stream that was taken back."""
        self._resets += 1
        if self._resets > RESETS_PER_S:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "too many streams taken back")

    def tick(self) -> None:
        """Forget the last second; end a connection whose peer asks and never reads."""
        outbound = self._outbound
        self._idle_frames = self.useful = outbound.useful = self._resets = 0
        self._stalled_ticks = self._stalled_ticks + 1 if outbound.queued and not outbound.progress else 0
        outbound.progress = False
        if self._stalled_ticks > STALLED_TICKS_MAX:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "a window that never opens")
