"""Imports run one way, and `import normplug` needs torch and mmengine alone."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import normplug

PACKAGE = Path(normplug.__file__).parent

# Each unit (a module or folder of the package) may import itself and units of lower floors.
FLOORS = [
    # foundations
    {'_requirements', 'errors', 'forward_hooks', 'own_code', 'quiet', 'random_state'},
    {'checkpoint_file', 'digits_record', 'files'},
    # the core
    {'batch_noise', 'covariance', 'stats', 'sparsestmax', 'precision', 'state'},
    {'running', 'dist', 'filters', 'isw'},
    {'ops'},
    {'norms'},
    # what mm builds and calls
    {'register', 'models', 'optim', 'compat', 'kalman', 'nonfinite', 'datasets', 'population'},
    {'whitened'},
    {'resume', 'environment'},
    {'hooks'},
    # the tools
    {'preflight', 'data'},
    {'launch', 'checkpoints', 'deploy'},
    {'reports'},
    {'bench'},
    {'experiments', 'gpu_check'},
    {'__init__', '__main__'},
]
FLOOR = {unit: number for number, units in enumerate(FLOORS) for unit in units}

# The core may import torch and the standard library, and in a few places mmengine.
CORE = {'stats', 'sparsestmax', 'ops', 'dist', 'running', 'filters', 'norms', 'register'}
CORE |= {'batch_noise', 'covariance', 'precision', 'state'}
# What torch itself brings; Triton with a torch for GPUs only, and only those import kernels.
WITH_TORCH = {
    'normplug.ops.traced': {'sympy'},
    'normplug.ops.kernels': {'triton'},
    'normplug.ops.triton_code': {'triton'},
}
WITH_MMENGINE = {'normplug.dist', 'normplug.norms.base', 'normplug.register'}

OPTIONAL = {
    'mmcv',
    'mmdet',
    'mmseg',
    'mmpretrain',
    'mmaction',
    'torchvision',
    'sklearn',
    'matplotlib',
}
OPTIONAL |= {'pycocotools', 'scipy', 'PIL', 'av', 'onnx', 'onnxruntime', 'onnxscript'}


def name_of(path: Path) -> str:
    """File → dotted module name; a package's is that of its folder."""
    parts = path.relative_to(PACKAGE.parent).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


FILES = {name_of(path): path for path in sorted(PACKAGE.rglob('*.py'))}


def unit_of(module: str) -> str:
    parts = module.split('.')
    return parts[1] if len(parts) > 1 else '__init__'


def imports_in(source: str, module: str, is_package: bool, lazy: bool = True) -> Iterator[str]:
    """Absolute names of the modules that ``source`` imports.

    With ``lazy``, those imported inside functions too. ``from package import name`` gives
    ``package.name`` where that is a module of normplug, and ``package`` otherwise.
    """
    todo = list(ast.parse(source).body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                above = module.split('.')
                above = above[: len(above) - node.level + is_package]
                base = '.'.join(above + base.split('.') * bool(base))
            for alias in node.names:
                name = f'{base}.{alias.name}'
                yield name if name in FILES else base
        elif lazy or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            todo.extend(ast.iter_child_nodes(node))


def imports(module: str, lazy: bool = True) -> set[str]:
    path = FILES[module]
    return set(imports_in(path.read_text(), module, path.stem == '__init__', lazy))


def ours(modules: set[str]) -> set[str]:
    return {name for name in modules if name.split('.')[0] == 'normplug'}


@pytest.mark.parametrize(
    ('source', 'module', 'is_package', 'want'),
    [
        ('import a.b, c', 'normplug.norms.sn', False, {'a.b', 'c'}),
        ('from .ibn import IBN', 'normplug.norms.sn', False, {'normplug.norms.ibn'}),
        ('from . import sn, X', 'normplug.norms.b', False, {'normplug.norms.sn', 'normplug.norms'}),
        ('from .ibn import IBN', 'normplug.norms', True, {'normplug.norms.ibn'}),
        ('from ..ops import fused', 'normplug.norms.sn', False, {'normplug.ops.fused'}),
        ('from .. import SN', 'normplug.norms.sn', False, {'normplug'}),
        ('from normplug import stats, SN', 'x', False, {'normplug.stats', 'normplug'}),
        ('try:\n import a\nexcept ImportError:\n import b', 'x', False, {'a', 'b'}),
        ('class A:\n import a\n def f(self): import b', 'x', False, {'a'}),
    ],
)  # fmt: skip
def test_the_parser_itself(source, module, is_package, want):
    assert set(imports_in(source, module, is_package, lazy=False)) == want


def test_the_parser_finds_lazy_imports():
    assert set(imports_in('def f():\n import b', 'x', False)) == {'b'}


@pytest.mark.parametrize('module', FILES)
def test_only_lower_floors_are_imported(module):
    unit = unit_of(module)
    assert unit in FLOOR, f'{unit}: give the new unit its place in FLOORS'
    for name in ours(imports(module)):
        other = unit_of(name)
        assert other == unit or FLOOR[other] < FLOOR[unit], f'{module} imports {name}'


def test_every_unit_on_a_floor_is_there_once():
    listed = [unit for floor in FLOORS for unit in floor]
    assert sorted(listed) == sorted({unit_of(module) for module in FILES})


def test_modules_have_no_import_cycle():
    """Lower floors leave circles within a unit, of imports inside functions too."""
    graph = {module: ours(imports(module)) - {module} for module in FILES}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_tools_import_the_package_and_are_imported_by_none_of_it():
    assert not any('tools' in name.split('.') for module in FILES for name in imports(module))
    for path in sorted((PACKAGE.parent / 'tools').glob('*.py')):
        if path.name == 'matrix.py':  # it makes environments and runs the tests there
            continue
        assert ours(set(imports_in(path.read_text(), path.stem, False))), path.name


@pytest.mark.parametrize('module', [m for m in FILES if m.startswith('normplug.norms.')])
def test_norm_files_import_no_other_norm_and_no_kernel(module):
    folder = 'normplug.norms'
    bases = {
        f'{folder}.{name}'
        for name in (
            'base',
            'before_step',
            'grouped',
            'history',
            'linked',
            'per_sample_gradients',
            'scripted',
            'switchable',
            'whitening',
            'windows',
        )
    }
    for name in ours(imports(module)):
        assert name in bases or not name.startswith(folder), f'{module} imports {name}'
        assert not name.startswith('normplug.ops.'), f'{module}: import normplug.ops, not {name}'


@pytest.mark.parametrize('module', [m for m in FILES if unit_of(m) in CORE])
def test_the_core_needs_torch_and_at_its_edges_mmengine(module):
    allowed = {'torch', 'normplug', *sys.stdlib_module_names}
    allowed |= {'mmengine'} if module in WITH_MMENGINE else set()
    allowed |= WITH_TORCH.get(module, set())
    foreign = {name for name in imports(module) if name.split('.')[0] not in allowed}
    assert not foreign, f'{module} imports {foreign}'


def test_nothing_optional_is_imported_with_the_package():
    reached, todo = set(), ['normplug']
    while todo:
        module = todo.pop()
        if module in reached:
            continue
        reached.add(module)
        names = imports(module, lazy=False)
        optional = {name for name in names if name.split('.')[0] in OPTIONAL}
        assert not optional, f'{module} imports {optional}, and import normplug imports it'
        for name in ours(names):  # and the packages that hold it
            parts = name.split('.')
            todo += ['.'.join(parts[:end]) for end in range(1, len(parts) + 1)]
    assert {'normplug.norms.sn', 'normplug.ops.fused', 'normplug.compat.mmcv_ext'} <= reached


# A machine without the optional packages, whatever is installed on this one.
HIDING = """
import sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {hidden}:
            return None
        return self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
for name in {hidden}:
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(name + ' is not hidden')

import normplug
from mmengine.registry import HOOKS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS
for name, norm in normplug.NORMS.items():
    assert isinstance(MODELS.build(dict(type=name, num_features=4)), norm), name
assert HOOKS.get('NormReportHook') and OPTIM_WRAPPER_CONSTRUCTORS.get('NormOptimWrapperConstructor')
assert 'mmcv._ext' not in sys.modules
print('registered', *normplug.NORMS)
"""


@pytest.mark.slow
def test_a_machine_with_torch_and_mmengine_alone():
    # matplotlib and PIL come with mmengine, which imports them by itself.
    script = HIDING.format(hidden=sorted(OPTIONAL - {'matplotlib', 'PIL'}))
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ['registered', *normplug.NORMS]
