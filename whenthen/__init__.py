"""whenthen: when this happens, then do that."""

__version__ = "0.1.0"
