"""One rank raises, every rank raises, and rank 0 shows every traceback."""

__version__ = "0.1.0"
