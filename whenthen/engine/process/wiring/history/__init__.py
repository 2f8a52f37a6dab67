"""Where does the role `history` run, and what does it consist of? In a process of its own where it can; loaded by who has it alone."""
