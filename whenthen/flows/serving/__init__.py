"""How does a script give its deployments to a server and work for them? Registering, and the processes that a served script starts."""
