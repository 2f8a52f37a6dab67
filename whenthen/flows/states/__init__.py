"""The states of runs, how they follow each other, and what a function's return value makes of them. Pure."""
