# Compiled kernels in a place where nobody may write, such as an image that runs with a read-only root.
#
# numba looks for a directory that it can write to before it looks for what it compiled earlier, and gives up without
# one. An image names this class in NUMBA_CACHE_LOCATOR_CLASSES, so that the directory beside a kernel counts as it is.
# If what is there does not fit, numba's attempt to save what it compiled instead fails, and with it the start: that is
# wanted, since an image that compiles at each start is a fault of the image. docs/decisions/start-up.md has the rest.

from numba.core.caching import InTreeCacheLocator


class Baked(InTreeCacheLocator):
    """Find compiled code in `__pycache__` beside its module, without asking whether more could be written there."""

    def ensure_cache_path(self) -> None:
        """Take the directory as it is."""
