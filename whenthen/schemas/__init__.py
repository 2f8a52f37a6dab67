"""What things are: data and validation only. Imports nothing of ours."""
