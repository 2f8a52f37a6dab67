"""One attempt of a run in the hands of a worker: whether it starts, how it starts, why it is stopped, what its end means."""
