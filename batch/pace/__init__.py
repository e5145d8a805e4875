"""When the next request may go: rate, window and gate, on one clock."""
