"""Tables and timings, each made by one command: ``python -m benchmarks.NAME``."""
