"""Streams between a client and a container: exec, attach, port-forward, logs, in each protocol that clients speak."""
