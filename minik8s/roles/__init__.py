"""Composition roots: the only files that know which concrete classes make up a master and a node."""
