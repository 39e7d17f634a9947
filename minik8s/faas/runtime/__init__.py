"""What runs in a function's pod: a supervisor that accepts connections, and forked workers that run the code.

The supervisor (`supervisor.py`) looks at the head of a connection's first request without taking it, and hands the
connection to a worker of the revision that is asked for; from then on the worker speaks HTTP on it. What no worker has
touched yet belongs to nobody: when a worker ends, however it ends, its untouched connections go back to the door.

Only the standard library, httptools and `minik8s.archives` are used here: this package is what the image carries.
"""
