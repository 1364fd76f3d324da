"""Sphinx: python -m sphinx -W docs docs/_build."""

from importlib import metadata

project = "clipsearch"
author = "The clipsearch authors"
copyright = "2026, The clipsearch authors"
release = metadata.version("clipsearch")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
html_theme = "furo"
html_title = "clipsearch"
