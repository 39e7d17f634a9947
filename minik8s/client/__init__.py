"""How every component reads and writes objects: only through the API, in one process or across machines."""
