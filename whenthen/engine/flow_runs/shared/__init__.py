"""Where is kept what runs share? Variables and artifacts over NATS."""
