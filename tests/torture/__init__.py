"""Real faults against the real command line: whole processes, a server that counts, and a checker that holds both together."""
