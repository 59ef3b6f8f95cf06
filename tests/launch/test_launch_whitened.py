"""Whitened layers and their hook need each other."""

MODEL = (
    "custom_imports['imports'].append('normplug')\nmodel['backbone']['type'] = 'Tiny{}Backbone'\n"
)
HOOK = "custom_hooks = [dict(type='WhiteningHook', interval=2, batches=1)]\n"


def test_training_whitens(project, train):
    assert train([project.write_config(MODEL.format('Whitened') + HOOK)]) == 0
    assert 'whitening: 1 layers in new coordinates' in project.log()


def test_layers_without_the_hook_are_refused(project, train, capsys):
    assert train([project.write_config(MODEL.format('Whitened'))]) == 2
    error = capsys.readouterr().err
    assert 'the model has 1 whitened layers that train (backbone.fc first)' in error
    assert "add dict(type='WhiteningHook', interval=...) to custom_hooks" in error
    assert 'Traceback' not in error


def test_the_hook_without_layers_is_refused(project, train, capsys):
    assert train([project.write_config(MODEL.format('') + HOOK)]) == 1
    error = capsys.readouterr().err
    assert 'training stopped: WhiteningHook: the model has no whitened layer that trains' in error
