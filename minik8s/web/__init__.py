"""The dashboard: a page for people, which does nothing that its user could not do with kubectl.

It is served beside the API server and knows it only as a client: every request of a browser goes on as the user who has
logged in, with that user's rights. `door.py` listens, and imports the rest when the first browser comes.
"""
