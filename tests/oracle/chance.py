# What looks like chance: hashes of what is recorded, so that everybody sees the same.

from __future__ import annotations

from fractions import Fraction


def hashed(*parts: str) -> int:
    """FNV-1a over the parts, each behind its length in 4 bytes, and the last step of splitmix64 over that."""
    number = 0xCBF29CE484222325
    for part in parts:
        encoded = part.encode()
        for byte in [*len(encoded).to_bytes(4, "big"), *encoded]:
            number = ((number ^ byte) * 0x100000001B3) % 2**64
    for shift, multiplier in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        number = ((number ^ (number >> shift)) * multiplier) % 2**64
    return number ^ (number >> 31)


def rank(tie_key: str, request: str, imp: str, seat: str, bid: str) -> int:
    """Among equal prices the lowest number wins. An empty tie key is left out."""
    return hashed(*([tie_key] if tie_key else []), request, imp, seat, bid)


def share_is_met(share: Fraction, auction: str, purpose: str) -> bool:
    return hashed(auction, purpose) < share * 2**64 // 1


def drawn(weights: list[int], auction: str, purpose: str) -> int:
    """Give the place of the weight that is drawn: the first up to which the weights are more than the draw."""
    draw = Fraction(hashed(auction, purpose), 2**64)
    return next(place for place in range(len(weights)) if draw * sum(weights) < sum(weights[: place + 1]))
