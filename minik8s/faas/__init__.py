"""Functions and workflows: an add-on over the API. Nothing below knows of it."""
