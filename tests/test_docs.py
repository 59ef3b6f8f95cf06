"""The documents' Python blocks run, and their links lead somewhere."""

import importlib
import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS
from torch.autograd import gradcheck

from normplug import NORMS, BaseNorm
from tests import cases
from tests.norms import test_contract as contract
from tests.test_imports import FLOOR

ROOT = Path(__file__).parents[1]
LINK = re.compile(r'\]\(([^)\s]+)\)')
BLOCK = re.compile(r'^```python\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def blocks(document: str) -> list[str]:
    return BLOCK.findall((ROOT / document).read_text())


@pytest.fixture
def normalizer(tmp_path, monkeypatch):
    """The guide's first block as the module that it is meant to be."""
    path = tmp_path / 'bin.py'
    path.write_text(blocks('docs/adding_a_normalizer.md')[0])
    spec = importlib.util.spec_from_file_location('normplug.norms.bin', path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module.BIN


@pytest.fixture
def case(normalizer):
    """The guide's third block: the row in tests/cases.py."""
    row = blocks('docs/adding_a_normalizer.md')[2]
    (case,) = eval(row, {**vars(cases), 'BIN': normalizer})
    return case


def test_the_guide_has_the_four_blocks():
    assert len(blocks('docs/adding_a_normalizer.md')) == 4


def test_registration_makes_the_type_work(normalizer, monkeypatch):
    # `normplug.register` is the function of that name.
    module = importlib.import_module('normplug.register')
    scope = {**vars(module), 'NORMS': dict(NORMS)}
    exec(blocks('docs/adding_a_normalizer.md')[1], scope)
    assert scope['NORMS'] == {**NORMS, 'BIN': normalizer}
    monkeypatch.setitem(NORMS, 'BIN', normalizer)
    monkeypatch.setitem(MODELS.module_dict, 'BIN', None)  # to be taken out again at the end
    del MODELS.module_dict['BIN']
    module.register()
    layer = MODELS.build({'type': 'BIN', 'num_features': 4, 'frozen': True})
    assert isinstance(layer, normalizer)
    assert isinstance(layer, BaseNorm)
    assert list(layer.parameters()) == []
    assert 'gate' in layer.state_dict()


def test_own_tests_of_the_guide_pass(normalizer):
    scope = {}
    torch.manual_seed(0)
    exec(blocks('docs/adding_a_normalizer.md')[3], scope)
    tests = [value for name, value in scope.items() if name.startswith('test_')]
    assert len(tests) == 3
    for run in tests:
        run()


def test_gradients_of_the_guides_layer(case):
    layer = cases.built(case, 3, torch.float64)
    x = cases.random_input((2, 3, 2, 3), torch.float64).requires_grad_()
    parameters = dict(layer.named_parameters())
    assert list(parameters) == ['weight', 'bias', 'gate']

    def function(x, *values):
        values = dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(layer, values, (x,))

    assert gradcheck(function, (x, *parameters.values()))


@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
@cases.all_shapes
def test_guides_layer_in_float32(case, shape, training):
    contract.test_float32_agrees_with_float64(case, shape, training)


@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
def test_guides_layer_on_an_empty_batch(case, training):
    contract.test_empty_batch(case, training)


@pytest.mark.parametrize(
    'check',
    [
        contract.test_large_mean_in_float32,
        contract.test_one_value_per_channel,
        contract.test_running_statistics_follow_batch_norm,
        contract.test_wrong_inputs_say_what_is_wrong,
    ],
    ids=lambda check: check.__name__,
)
def test_guides_layer_keeps_the_contract(case, check):
    check(case)


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
