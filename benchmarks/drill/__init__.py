"""Servers that come, go and die while calls go on: `make drill`."""
