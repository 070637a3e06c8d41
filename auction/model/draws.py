# Every "random" choice of an auction is a hash of recorded inputs, so a replay on any machine, in any language, sees
# the same one. FNV-1a folds the parts, each behind its length so that ("ab", "c") and ("a", "bc") differ; the
# finaliser of splitmix64 spreads the result, because FNV alone leaves short ids close together.

from __future__ import annotations

_MASK = 0xFFFFFFFFFFFFFFFF
FNV_OFFSET = 0xCBF29CE484222325
_FNV_PRIME = 0x100000001B3


def fnv1a64(parts: bytes, folded: int = FNV_OFFSET) -> int:
    """Fold bytes into 64 bits (FNV-1a), on from what was folded before."""
    for byte in parts:
        folded = ((folded ^ byte) * _FNV_PRIME) & _MASK
    return folded


def mix64(folded: int) -> int:
    """Spread 64 bits over 64 bits: the finaliser of splitmix64, one to one."""
    folded = ((folded ^ (folded >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    folded = ((folded ^ (folded >> 27)) * 0x94D049BB133111EB) & _MASK
    return folded ^ (folded >> 31)


def framed(part: str) -> bytes:
    """Write a part as UTF-8 behind its length, 4 bytes big-endian."""
    encoded = part.encode()
    return len(encoded).to_bytes(4, "big") + encoded


def fold(*parts: str, onto: int = FNV_OFFSET) -> int:
    """Fold texts, each framed, on from what was folded before."""
    return fnv1a64(b"".join(map(framed, parts)), onto)


def rank(before: int, bid: str) -> int:
    """Give a bid's place among equal prices: the lowest unsigned 64 bits win.

    `before` is the fold of tie_key, request id, impression id and seat; an empty tie_key is left out, an empty seat is
    not.

    >>> hex(rank(fold("auc-0", "1", "A"), "a1")), hex(rank(fold("auc-2", "1", "B"), "b1"))
    ('0x8a0e7464e6baa552', '0xee93c6d1fd25527a')
    """
    return mix64(fold(bid, onto=before))
