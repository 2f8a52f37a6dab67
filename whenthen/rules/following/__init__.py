"""What happens in a rule test: its steps in virtual time, and with `follow` what the actions of firings emit. Called by `rules.test_runner`."""
