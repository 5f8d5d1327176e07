"""README and docs: their links resolve, their commands exist, and the README stays a page."""

import re
from pathlib import Path

import pytest

from miram.cli import _parser

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The names under which GitHub lets one link to the headings of a page."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(page.read_text())}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name if page.parent == ROOT else f"docs/{page.name}")
def test_links_resolve(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), f"{page.name} links to {target}, which does not exist"
        assert linked.is_relative_to(ROOT), f"{page.name} links out of the project: {target}"
        assert not anchor or anchor in anchors(linked), f"{page.name} links to {target}, which has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name if page.parent == ROOT else f"docs/{page.name}")
def test_commands_of_miram_exist(page):
    known = next(action for action in _parser()._actions if action.dest == "stage").choices
    for command in re.findall(r"(?:^|`|bin/)miram (?:--preset \S+ )?([a-z]+)", page.read_text(), re.MULTILINE):
        assert command in known, f"{page.name} names `miram {command}`"


def test_the_readme_is_a_page():
    text = (ROOT / "README.md").read_text()
    before_licence = text[: text.index("## Data, licence")]
    assert len(text.splitlines()) <= 110
    assert len(before_licence.split()) <= 900


def test_each_page_of_the_docs_is_in_their_index():
    index = (ROOT / "docs" / "README.md").read_text()
    for page in PAGES[2:]:
        assert page.name == "README.md" or f"({page.name})" in index, f"docs/README.md does not list {page.name}"
