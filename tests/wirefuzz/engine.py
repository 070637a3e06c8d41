# One target under atheris, which is libFuzzer for Python: it changes inputs towards branches that no input has reached.
# It does not return. `python -m tests.wirefuzz` starts it, once for each target.

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["auction.edge.wire", "hpack"]):
    from tests.wirefuzz import targets

if __name__ == "__main__":
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, lambda data: targets.check(name, data))
    atheris.Fuzz()
