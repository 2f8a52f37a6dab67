"""Why something was decided, what led to what, and a test of it: answers that are put together from several streams."""
