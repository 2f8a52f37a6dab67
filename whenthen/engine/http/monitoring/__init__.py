"""What does whoever runs the server see of it? Metrics and probes of processes without the API, and refused requests in the log."""
