"""The checks under test: every check on every fixture, and what it says of each check."""
