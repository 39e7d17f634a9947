"""Environments: what functions require besides their code, built once per node by a Job, shared read-only."""
