"""Typer commands, thin, one file per command group."""
