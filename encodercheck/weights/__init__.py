"""Weights on disk: the header, the architecture it describes, and the module built for it."""
