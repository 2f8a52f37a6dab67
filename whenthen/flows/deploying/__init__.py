"""How does a flow become a deployment: its schedules, triggers, parameters, and the place that it is loaded from?"""
