"""The only home of numba. A kernel stands beside a slow twin in tests/oracle.py that it must equal, bit by bit."""

from auction.core.kernels.clear import clear, warm_up

__all__ = ["clear", "warm_up"]
