"""What is the running process? The rooms above a NATS connection: `bus`, `evaluation`, `execution`, `flow_runs`, `http`, and `process`, which
wires them.
"""
