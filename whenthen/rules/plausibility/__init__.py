"""Can it work, and is it meant? What the text of rules and the files beside them tell before any event comes.

Called by `rules.folder` and `rules.compilation`. Meaning: docs/testing.md, "What check finds".
"""
