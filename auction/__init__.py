"""An ad auction engine: OpenRTB in, exact decisions out, every auction reproducible."""

__version__ = "0.1.0"
