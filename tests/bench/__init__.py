"""The benchmark: what minik8s costs and how long it takes, measured from outside on real processes.

Every agent is a process of its own on a folder of its own, spoken to over TLS with a ServiceAccount's bearer token.
Load comes from another process, whose HTTP client does as little as possible, so that the server is what is measured.
`python -m tests.bench`, which `scripts/bench` calls, prints a table of all measures beside their goals.
"""
