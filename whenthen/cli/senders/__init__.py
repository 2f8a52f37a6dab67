"""Which senders of webhooks are known? The command `whenthen providers`."""
