# How many auctions may be in flight at once.
#
# It exists because a queue in front of a deadline only makes answers that nobody waits for any more: whoever cannot be
# served now is told so now, and the ad server still has time for its other calls. There is no waiting room here, no
# fairness between callers and no guess at the machine's load: one number, and a refusal that costs a comparison.
#
# It counts what a transport has handed over, so it cannot refuse what waits inside one: docs/decisions/admission.md.

from __future__ import annotations


class Admission:
    """Count what is in flight and refuse what is too much; belongs to one event loop.

    limit       auctions at once, >= 1
    in_flight   admitted and not yet left
    """

    __slots__ = ("in_flight", "limit")

    def __init__(self, limit: int) -> None:
        assert limit >= 1
        self.limit = limit
        self.in_flight = 0

    def enter(self) -> bool:
        """Admit one more, or return False; who was admitted leaves exactly once."""
        if self.in_flight >= self.limit:
            return False
        self.in_flight += 1
        return True

    def leave(self) -> None:
        assert self.in_flight > 0
        self.in_flight -= 1
