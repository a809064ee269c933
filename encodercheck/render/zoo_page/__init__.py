"""Results of many models as one searchable HTML page that loads nothing.

>>> from encodercheck.render import zoo_page
>>> zoo_page.render([], zoo_page.Facts("zoo")).startswith("<!DOCTYPE html>")
True
"""

from encodercheck.render.zoo_page.page import render
from encodercheck.render.zoo_page.rows import Facts, Row

__all__ = ["Facts", "Row", "render"]
