"""syndistill: distil an AlphaQubit Teacher into small Students for quantum error correction."""

from importlib.metadata import version

__version__ = version("syndistill")
