"""An automation as a tree of triggers, and how it is compiled. Called by `triggers.rule_set`; the nodes are read wherever decisions are made."""
