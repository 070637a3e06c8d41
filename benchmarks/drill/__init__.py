"""Servers that come, go and die while calls go on: `make drill`."""

import os

# grpc's own lines about each connection that breaks, which is what we do here; it reads this when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
