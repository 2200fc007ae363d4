"""The federation daemon of the Earth System Grid Federation."""

__version__ = "0.1.0"
