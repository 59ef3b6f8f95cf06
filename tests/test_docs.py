"""The documents' Python blocks are code, the guide's is ours, and links lead somewhere."""

import re
from pathlib import Path

import pytest

from tests.test_imports import FLOOR

ROOT = Path(__file__).parents[1]
LINK = re.compile(r'\]\(([^)\s]+)\)')
BLOCK = re.compile(r'^```python\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def blocks(document: str) -> list[str]:
    return BLOCK.findall((ROOT / document).read_text())


def test_the_example_of_the_guide_is_the_code():
    whole, name, row, tests = blocks('docs/adding_a_normalizer.md')
    assert whole == (ROOT / 'normplug/norms/bin.py').read_text()
    assert name in (ROOT / 'normplug/norms/__init__.py').read_text()
    assert f'    {row.strip()[1:-1]}\n' in (ROOT / 'tests/cases.py').read_text()
    assert tests == (ROOT / 'tests/norms/test_bin.py').read_text()


def documents() -> list[str]:
    found = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('**/*.md'))]
    return [str(path.relative_to(ROOT)) for path in found if path.exists()]


@pytest.mark.parametrize('document', documents())
def test_python_blocks_compile(document):
    text = (ROOT / document).read_text()
    found = blocks(document)
    # None is missed for the way in which it is written.
    assert len(found) == len(re.findall(r'^\s*```\s*(?:python|py)\b', text, re.MULTILINE))
    for number, block in enumerate(found):
        compile(block, f'{document}, Python block {number}', 'exec')


def anchors(path: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r'^#+ (.+)$', path.read_text(), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('document', documents())
def test_links_lead_somewhere(document):
    page = ROOT / document
    for link in LINK.findall(page.read_text()):
        if '://' in link:
            continue
        name, _, anchor = link.partition('#')
        target = page.parent / name if name else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize(
    ('index', 'pages'), [('README.md', 'docs/*.md'), ('docs/lab/README.md', 'docs/lab/*.md')]
)
def test_an_index_names_every_page_once(index, pages):
    index = ROOT / index
    linked = [(index.parent / link).resolve() for link in LINK.findall(index.read_text())]
    pages = [page for page in ROOT.glob(pages) if page != index]
    assert len(pages) >= 3
    assert {page: linked.count(page) for page in pages} == dict.fromkeys(pages, 1)


def test_every_picture_is_shown():
    shown = {
        ((ROOT / document).parent / link).resolve()
        for document in documents()
        for link in LINK.findall((ROOT / document).read_text())
    }
    assert set((ROOT / 'docs/images').iterdir()) <= shown


def test_the_names_in_the_architecture_are_true():
    """Paths exist, a name before a path in brackets is in that file, floors are those tested."""
    page = (ROOT / 'docs/architecture.md').read_text()
    paths = re.findall(r'`((?:normplug|tests|tools|configs)/[\w/.]*)`', page)
    assert len(paths) > 25
    assert [path for path in paths if not (ROOT / path).exists()] == []
    for name, path in re.findall(r'`([\w.]+)` \(`(normplug/[\w/]+\.py)`', page):
        assert re.search(rf'(def|class) {name.split(".")[-1]}\b', (ROOT / path).read_text()), name
    units = [unit for row in floors_of(page) for unit in sorted(row, key=lambda u: -FLOOR[u])]
    assert set(units) == set(FLOOR) - {'__init__', '_requirements'}
    assert units == sorted(units, key=lambda unit: -FLOOR[unit])  # from the top down


def floors_of(page: str) -> list[list[str]]:
    """The units of each row of the table of floors."""
    rows = page.split('| --- | --- | --- |')[1].split('\n\n')[0].strip().splitlines()
    return [re.findall(r'`(\w+)`', row.split('|')[2]) for row in rows]
