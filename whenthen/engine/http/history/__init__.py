"""Routes of the history."""
