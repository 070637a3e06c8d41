# The workers are started by the name of their module, which this one has not.

import sys

from tests.fuzz.run import main

if __name__ == "__main__":
    sys.exit(main())
