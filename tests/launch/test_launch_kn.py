"""The launcher links KN's layers, whether the config asks for it or not."""

import pytest


@pytest.mark.parametrize('more', ['', "custom_hooks = [dict(type='KalmanLinkHook')]\n"])
def test_training_links_once(project, train, more):
    model = "model['backbone']['type'] = 'TinyKNBackbone'\n"
    config = project.write_config("custom_imports['imports'].append('normplug')\n" + model + more)
    assert train([config]) == 0
    line = 'KN: 0 layers are predicted by others, 1 are plain batch norm:'
    assert project.log().count(line) == 1
