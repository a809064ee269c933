"""The report as one HTML page that loads nothing and runs nothing.

>>> from encodercheck.render import html
>>> html.render([]).startswith("<!DOCTYPE html>")
True
"""

from encodercheck.render.html.page import render

__all__ = ["render"]
