"""Sphinx builds these pages: pip install ".[docs]" && sphinx-build -W -b html docs site."""

from importlib import metadata

project = "wsi_twostage"
author = "the authors of wsi_twostage"
try:
    release = metadata.version("wsi-twostage")
except metadata.PackageNotFoundError:
    release = ""

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
exclude_patterns = ["results"]

myst_heading_anchors = 3  # links such as runs.md#how-runs-end, as on a code host
myst_enable_extensions = ["colon_fence"]

default_role = "code"  # what stands in single backticks in docstrings
smartquotes = False  # two dashes begin an option

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}

html_theme = "furo"
html_title = "wsi_twostage"
html_copy_source = False
html_show_sphinx = False


def _home(app: object, name: str, source: list[str]) -> None:
    """The README is no page here; the first page says the same."""
    source[0] = source[0].replace("](../README.md)", "](index.md)")


def setup(app: object) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _home)  # type: ignore[attr-defined]
