"""What does each role of a process consist of? One file a role, over the parts that all share (`process_parts`)."""
