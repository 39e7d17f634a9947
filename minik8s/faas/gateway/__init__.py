"""The gateway of functions: on every node, from clients to the pods of functions and back, without losing a request."""
