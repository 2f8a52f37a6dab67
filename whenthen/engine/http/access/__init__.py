"""What does a request show of who sends it, and may they have it? Bearer tokens, session cookies, and the scope of each route."""
