"""Checks that Acme runs beside the built-in suite: one check a file, `check_*.py`."""
