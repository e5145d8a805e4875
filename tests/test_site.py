"""The documentation site builds from what is here, leads nowhere wrong, needs no network, and every example of the API runs."""

from __future__ import annotations

import doctest
import inspect
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

import batch
from batch import errors

ROOT = Path(__file__).parent.parent
API = sorted((ROOT / "docs/api").glob("*.md"))
SHOWN = re.compile(r"^\.\. (py:module|autofunction|autoclass|autoexception):: ([\w.]+)", re.MULTILINE)
BLOCK = re.compile(r"^```python\n(.*?)^```$(?:\n\n^```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)

BUILD = """
import sys

def offline(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise OSError(f"asks the network: {event} {arguments}")

sys.addaudithook(offline)
from sphinx.cmd.build import main
sys.exit(main(sys.argv[1:]))
"""

CELLS = """
import ast, asyncio, contextlib, inspect, io, json, sys

async def run(cells):
    names, said = {"__name__": "__main__"}, []
    for cell in cells:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            ended = eval(compile(cell, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
            if inspect.iscoroutine(ended):
                await ended
        said.append(out.getvalue())
    return said

print(json.dumps(asyncio.run(run(json.load(sys.stdin)))))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make site` builds it, but by a process that may not ask the network."""
    folder = tmp_path_factory.mktemp("site")
    arguments = ["-q", "-W", "-n", "--keep-going", "-d", folder / "doctrees", ROOT / "docs", folder / "site"]
    done = subprocess.run([sys.executable, "-c", BUILD, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder / "site"


class Links(HTMLParser):
    """What a page links to and loads, and the places in it that can be linked to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.places: set[str] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.places.add(given.get("id", ""))
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        elif found := given.get("src") or (tag == "link" and given.get("href")):
            self.loads.add(found)


def test_every_page_stands_in_the_site(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT / "docs")).with_suffix(".html").exists()
    assert "nothing paid twice" in (site / "index.html").read_text()


def test_every_link_of_the_site_leads_to_a_place_that_is_there(site: Path) -> None:
    pages = {page: Links(page) for page in site.rglob("*.html")}
    for page, found in pages.items():
        for link in found.links | found.loads:
            target = urlsplit(link)
            if target.scheme in ("http", "https"):
                continue
            there = (page.parent / unquote(target.path)).resolve() if target.path else page
            assert there.is_file(), f"{page.name} leads to {link}"
            assert not target.fragment or there not in pages or unquote(target.fragment) in pages[there].places, link


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert [found for found in Links(page).loads if re.match(r"\w+:|//", found) and not found.startswith("data:")] == []
    for sheet in site.rglob("*.css"):
        assert re.findall(r"""(?:@import|url\()\s*["']?(?:https?:)?//[^)]*""", sheet.read_text()) == []


def test_make_site_builds_it_as_the_test_does() -> None:
    done = subprocess.run(["make", "-n", "site"], cwd=ROOT, capture_output=True, text=True)
    assert "-E -W -n --keep-going -d build/doctrees docs build/site" in done.stdout


# Examples


@pytest.mark.parametrize("page", API, ids=[page.stem for page in API])
def test_the_python_of_a_page_prints_what_is_shown(page: Path, tmp_path: Path) -> None:
    """Its blocks are run as the cells of one notebook, so inside a running event loop."""
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs", ignore=shutil.ignore_patterns("answers.csv*"))
    cells = BLOCK.findall(page.read_text())
    done = subprocess.run(
        [sys.executable, "-c", CELLS],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        input=json.dumps([code for code, _ in cells]),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [prints for _, prints in cells]


def docstrings() -> Iterator[doctest.DocTest]:
    """The examples of every docstring there is."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    names = [module.name for module in pkgutil.walk_packages(batch.__path__, "batch.") if not module.name.endswith("__main__")]
    for name in names:
        for found in finder.find(import_module(name), name):
            if found.examples:
                yield found


EXAMPLES = {found.name: found for found in docstrings()}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_of_a_docstring_prints_what_is_shown(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    result = doctest.DocTestRunner().run(EXAMPLES[name], clear_globs=False)
    assert not result.failed, capsys.readouterr().out


def shown() -> Iterator[tuple[str, Any]]:
    """Every function and class that the pages of the API show."""
    for page in API:
        module = ""
        for kind, name in SHOWN.findall(page.read_text()):
            if kind == "py:module":
                module = name
                continue
            home, _, last = (name if "." in name else f"{module}.{name}").rpartition(".")
            yield f"{home}.{last}", getattr(import_module(home), last)


def test_every_public_name_is_on_a_page() -> None:
    things = dict(shown())
    assert {f"batch.{name}" for name in batch.__all__ if name != "__version__"} <= things.keys()
    tree = {thing for thing in vars(errors).values() if inspect.isclass(thing) and issubclass(thing, batch.BatchError)}
    assert tree <= set(things.values())


def test_everything_on_the_pages_is_in_an_example() -> None:
    examples = "".join(code for page in API for code, _ in BLOCK.findall(page.read_text()))
    examples += "".join(example.source for found in EXAMPLES.values() for example in found.examples)
    results = {"RepairReport", "Report", "Verdict", "Break", "Summary", "Hints", "Stamp", "Model"}  # what calls return or take
    for name, thing in shown():
        last = name.rpartition(".")[2]
        if not (inspect.isclass(thing) and issubclass(thing, Exception)) and last not in results:
            assert re.search(rf"\b{last}\(|\b{last}\b\.|batch\.{last}\b", examples), name


def test_the_table_of_exit_codes_is_that_of_the_exceptions() -> None:
    table = re.findall(r"^\| `(\w+)` \| (\d+) \|$", (ROOT / "docs/api/errors.md").read_text(), re.MULTILINE)
    assert table == [(name, str(getattr(errors, name).exit_code)) for name, _ in table]
    assert len(table) == 11
