"""How runs of flows and tasks go: engines as generators of steps, and what performs the steps."""
