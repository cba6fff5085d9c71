"""One Quorum node: discovery, queue, placement, engines and the HTTP surfaces. Imports nothing from ``app``."""

__version__ = "0.1.0"
