"""Which commands does the API have? events in, automations and deployments paused, runs started and cancelled."""
