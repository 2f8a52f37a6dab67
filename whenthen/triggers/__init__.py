"""The pure core: events and `now` in, decisions, firings and changed windows out. No clock, no bus, no files."""
