"""`whenthen deploy` and `whenthen deployments remove`: deployments that are registered with a running server."""
