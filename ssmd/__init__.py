"""ssmd: Stupid Simple Market Data."""

__version__ = "0.1.0"
