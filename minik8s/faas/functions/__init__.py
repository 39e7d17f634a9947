"""Functions of the cluster on the master's side: their revisions, their code, and how many pods they have."""
