"""Sphinx builds these pages: pip install ".[docs]" && sphinx-build -W -b html docs site."""

from importlib import metadata

from click.testing import CliRunner
from sphinx.ext.napoleon import NumpyDocstring

from wsi_seg.main import commands

project = "wsi_twostage"
author = "the authors of wsi_twostage"
try:
    release = metadata.version("wsi-twostage")
except metadata.PackageNotFoundError:
    release = ""

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["results"]

myst_heading_anchors = 3  # links such as runs.md#how-runs-end, as on a code host
myst_enable_extensions = ["colon_fence"]

default_role = "code"  # what stands in single backticks in docstrings
smartquotes = False  # two dashes begin an option

autodoc_typehints = "signature"
autodoc_preserve_defaults = True  # as they are written; the repr of a function is no signature
python_maximum_signature_line_length = 80  # one parameter a line where it is longer
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_param = False  # `mean, std` share their description
NumpyDocstring._parse_attribute_docstring = NumpyDocstring._consume_to_end  # `Threads: ...` is no type

html_theme = "furo"
html_title = "wsi_twostage"
html_static_path = ["_static"]
html_css_files = ["options.css"]
html_copy_source = False
html_show_sphinx = False


def _fill(app: object, name: str, source: list[str]) -> None:
    """The README is no page here, the first page says the same; help comes from the commands."""
    source[0] = source[0].replace("](../README.md)", "](index.md)")
    if name == "commands":
        names = [name for name in commands.commands if name != "model"] + ["model show", "model pack"]
        source[0] += "\n".join(_help(name) for name in sorted(names))


def _help(name: str) -> str:
    text = CliRunner().invoke(commands, [*name.split(), "--help"], prog_name="wsi-seg").output
    return f"### {name}\n\n```text\n{text}```\n"


def setup(app: object) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _fill)  # type: ignore[attr-defined]
