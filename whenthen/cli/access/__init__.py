"""Commands about who may do what: tokens, and logging a browser in."""
