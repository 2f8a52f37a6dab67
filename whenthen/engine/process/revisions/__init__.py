"""The one set of rules of all processes: what a start takes, how a change is published, and how this process follows."""
