"""Calls that nobody waits for: kept until they are made, by clients, by the clock, and by what came of other calls."""
