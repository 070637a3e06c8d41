# Exceptions are for the caller's mistake. What a market decides (a lost bid, a late reply) is a value; see reasons.py.

from __future__ import annotations


class InvalidRequest(Exception):
    """Refuse a request whole; `path` names the field as the sender wrote it, `message` what was expected and found."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(path, message)
        self.path = path
        self.message = message

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class InvalidReply(Exception):
    """Refuse a bidder's reply whole; the exchange counts it as status 102 for every impression that was asked."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class OtherData(ValueError):
    """Rules were written with another data file than the one that is here; the message names it."""
