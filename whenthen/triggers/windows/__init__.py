"""Windows: the state of a trigger for one key, and pure decisions over it, one module per kind of window.

A state is a flat list of JSON values: it is stored unchanged, a million of them fit into a process, and nothing is
converted on restore. `state[0]` is always the clock of the last change, in microseconds. All times are microseconds.
"""
