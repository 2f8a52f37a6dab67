"""What would rules have made of events? `whenthen replay`, and what differs between two sets of rules."""
