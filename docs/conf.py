"""The documentation site, which `make site` builds: the pages of this folder as they are, and the API from its docstrings."""

import os
import re
from pathlib import Path

from docutils import nodes
from pygments.lexers import TextLexer
from sphinx.application import Sphinx

import batch

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent

project = "ails-batch"
version = release = batch.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!batch\.).*"),  # others' names: their pages would have to be asked over the network
    ("py:class", r"batch\.(clock\.Clock|formats\.frame\.Frame)"),  # for tests, and for run_frame
]

myst_heading_anchors = 3
smartquotes = False  # `--option` has two dashes
default_role = "literal"  # docstrings set names in single backticks, like the pages
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_use_ivar = True
python_maximum_signature_line_length = 88
python_display_short_literal_types = True

html_theme = "furo"
html_title = f"{project} {version}"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False

PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files outside this folder that are pages of the site, and the page that includes each."""

_LINK = re.compile(r"(?<!!)\[([^\[\]]+)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def _linked(text: str, source: Path, page: Path) -> str:
    """Links between files of the project, which lead as on a code host, led through the site.

    Args:
        text: Markdown with links relative to `source`.
        source: The folder of the file it comes from.
        page: The folder of the page it stands on.

    Returns:
        The text with links relative to `page`; a link to a folder, which a site does not show, is its words alone.
    """

    def led(link: re.Match[str]) -> str:
        words, target, part = link.groups()
        there = (source / target).resolve()
        if there.is_dir():
            return words
        there = DOCS / PAGES.get(os.path.relpath(there, ROOT), there)
        return f"[{words}]({os.path.relpath(there, page)}{part or ''})"

    return _LINK.sub(led, text)


def _read(app: Sphinx, name: str, content: list[str]) -> None:
    folder = (DOCS / name).parent
    content[0] = _linked(content[0], folder, folder)


def _included(app: Sphinx, path: Path, name: str, content: list[str]) -> None:
    content[0] = _linked(content[0], (DOCS / path).resolve().parent, (DOCS / name).parent)


def _several(app: Sphinx, kind: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Attributes told together, `rpm, tpm: …`: a space in a field's name would make a type of the first one."""
    lines[:] = [re.sub(r"^:ivar \w+(, \w+)+:", lambda names: ":ivar " + names[0][6:].replace(" ", ""), line) for line in lines]


def _dashes(app: Sphinx, doctree: nodes.document) -> None:
    """The dash between a field and what it means, which Sphinx leaves to the quotes that are switched off above."""
    for text in list(doctree.findall(nodes.Text)):
        if text == " -- ":
            text.parent.replace(text, nodes.Text(" – "))


def setup(app: Sphinx) -> None:
    """Lead links through the site before anything else reads them; name the languages that Pygments lacks."""
    for name in ("csv", "jsonl"):
        app.add_lexer(name, TextLexer)
    app.connect("source-read", _read)
    app.connect("include-read", _included)
    app.connect("autodoc-process-docstring", _several, priority=600)  # after napoleon
    app.connect("doctree-read", _dashes)
