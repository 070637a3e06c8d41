# Trials are forked, and start with nothing of this but what `run` holds.

import sys

from tests.mutants.run import main

if __name__ == "__main__":
    sys.exit(main())
