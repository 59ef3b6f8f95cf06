"""One list of norm types, wherever their names are met."""

from types import ModuleType

from mmengine.registry import MODELS

import normplug
from normplug import NORMS, BaseNorm, norms
from normplug.norms.bn import _BatchOnly
from normplug.norms.switchable import SwitchableNorm
from normplug.norms.whitening import WhiteningNorm

FILES = {value.__name__ for value in vars(norms).values() if isinstance(value, ModuleType)}


def types_under(base):
    for kind in base.__subclasses__():
        yield kind
        yield from types_under(kind)


def test_every_norm_type_is_in_the_list():
    types = {kind for kind in types_under(BaseNorm) if kind.__module__ in FILES}  # no test's own
    assert types - {SwitchableNorm, WhiteningNorm, _BatchOnly} == set(NORMS.values())


def test_every_norm_type_is_registered_and_imported_by_its_name():
    scope = {}
    exec('from normplug import *', scope)
    for name, kind in NORMS.items():
        assert kind.__name__ == name
        assert MODELS.get(name) is scope[name] is getattr(norms, name) is kind
    assert set(normplug.__all__) <= scope.keys()
