"""Results that are not there yet, and how they become arguments."""
