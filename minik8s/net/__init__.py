"""Node plumbing: pod wiring, service addresses, cluster DNS."""
