"""What the API can be told to do: events in, automations and deployments paused, runs started and cancelled."""
