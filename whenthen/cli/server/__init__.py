"""`whenthen serve` and `whenthen worker`: from the options to a process that runs until it is told to stop."""
