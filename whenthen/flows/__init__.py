"""How does a Python program say what a flow and a task are? The SDK that will be here runs with nothing else installed or started."""
