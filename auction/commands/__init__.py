"""The programs, one file each: `arguments(parser)` and `run(arguments) -> exit code`; the docstring is the help."""

# Summaries stand here so that `auction --help` imports no command, and with it no numba and no grpcio.
COMMANDS = {
    "serve": "answer auctions over gRPC and JSON",
    "demo": "run an exchange with six bidders here, on real requests",
    "call": "send one request to an exchange and print its answer",
    "explain": "tell why an auction ended as it did, bid by bid",
    "replay": "run logged auctions again, as they were or under other rules",
    "log": "read a log: cat, stat, verify",
    "config": "check a configuration, print its schema",
    "reload": "make a running exchange read its configuration again",
    "load": "send requests at a constant rate and print honest percentiles",
}
