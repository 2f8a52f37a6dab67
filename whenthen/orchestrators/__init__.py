"""How does a firing start a deployment of somebody else's orchestrator? One module each, behind the port `actions.Orchestrator`, which
`runs` implements for the built-in one. There is none yet.
"""
