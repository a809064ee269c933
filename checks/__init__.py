"""The built-in suite: one check a file."""
