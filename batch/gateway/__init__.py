"""The server side of the protocol: an endpoint of one's own, answered by a small real model or by an echo."""
