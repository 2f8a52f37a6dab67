"""Where in the log of events were automations paused and resumed? The messages that say so, and what they add up to."""
