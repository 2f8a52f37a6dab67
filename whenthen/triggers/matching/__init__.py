"""Which triggers match an event? The index, filters, globs and clause trees."""
