"""Which routes are there for what runs share: variables, artifacts, slots of named limits? And what do they have in common with others?"""
