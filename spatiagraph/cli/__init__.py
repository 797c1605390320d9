"""The command ``spatiagraph``."""

from spatiagraph.cli.app import app

__all__ = ["app"]
