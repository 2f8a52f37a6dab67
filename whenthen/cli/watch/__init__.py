"""`whenthen watch`."""
