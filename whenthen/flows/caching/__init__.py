"""Results that are kept: cache keys, files, transactions."""
