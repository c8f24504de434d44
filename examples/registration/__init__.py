"""User registration over HTTP, with actors: see ``__main__``."""
