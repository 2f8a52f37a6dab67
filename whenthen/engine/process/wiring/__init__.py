"""What each role of a process consists of, one file a role, over the parts that all share (`process_parts`)."""
