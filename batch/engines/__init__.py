"""How outcomes are made side by side; an engine takes prompts and hands each to the work."""
