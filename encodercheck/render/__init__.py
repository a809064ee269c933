"""One file per report format: a Report in, text out."""
