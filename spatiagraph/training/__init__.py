"""Lightning adapters, ``fit`` and ``embed``."""
