"""HTTP/2 and gRPC on asyncio, from the octets up. Knows nothing of auctions; see README.md beside this file."""
