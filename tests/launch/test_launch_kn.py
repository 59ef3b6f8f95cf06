"""The launcher links the layers of KN and CBN, whether the config asks for it or not."""

import pytest

LINES = {
    'KN': 'KN: 0 layers are predicted by others, 1 are plain batch norm:',
    'CBN': 'CBN: 0 layers are linked to a convolution, 1 are plain batch norm:',
}


@pytest.mark.parametrize(
    ('norm', 'more'),
    [('KN', ''), ('KN', "custom_hooks = [dict(type='KalmanLinkHook')]\n"), ('CBN', '')],
)
def test_training_links_once(project, train, norm, more):
    model = f"model['backbone']['type'] = 'Tiny{norm}Backbone'\n"
    config = project.write_config("custom_imports['imports'].append('normplug')\n" + model + more)
    assert train([config]) == 0
    assert project.log().count(LINES[norm]) == 1
    assert 'of its own' not in project.log()  # hooks of the launcher change no layer before that
