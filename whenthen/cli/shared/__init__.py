"""The commands for what runs share: variables, artifacts, named limits."""
