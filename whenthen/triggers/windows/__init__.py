"""What triggers remember for a key, and the pure decisions over it, one module a kind of window.

A state is a flat list of JSON values: it is stored as it is, a million of them fit into a process, and nothing has to be
converted on restore. `state[0]` is always the clock of the last change, in microseconds. All times are microseconds.
"""
