"""What does a person see in a browser? The server-rendered pages that will be here ask the ports of queries and commands."""
