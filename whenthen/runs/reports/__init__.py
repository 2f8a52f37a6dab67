"""What does the process of a run tell its worker, how is it heard, and what becomes of it? Meaning: docs/deployments.md, "What a run tells its worker"."""
