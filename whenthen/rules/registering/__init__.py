"""How do deployments that a script registers become part of the rules? Files of the set that no folder has, one for each."""
