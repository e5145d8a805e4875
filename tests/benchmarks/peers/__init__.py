"""One short script a peer; each runs in a virtual environment of its own, as ``python -P PEER.py ROWS OUT URL CONCURRENCY``."""
