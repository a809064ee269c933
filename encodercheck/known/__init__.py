"""Failures known before a scan: those that waivers accept, and those that a baseline has."""
