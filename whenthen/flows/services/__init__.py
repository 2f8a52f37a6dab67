"""What does a run ask of others: variables, secrets, limits, input, artifacts, events, and other runs?"""
