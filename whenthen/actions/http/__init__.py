"""How does an action send a request? The action `call-webhook`, its HTTP client, the address policy, TLS and signatures."""
