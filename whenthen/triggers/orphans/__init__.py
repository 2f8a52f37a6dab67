"""Windows whose automation is not in the rules at hand: kept, given back, forgotten in time."""
