"""The commands that ask a server why something happened, what led to what, and for a test of it."""
