"""The route of what is happening now."""
