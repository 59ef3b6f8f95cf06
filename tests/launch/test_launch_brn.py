"""BRN layers and the hook that widens their bounds need each other."""

MODEL = (
    "custom_imports['imports'].append('normplug')\n"
    "model['backbone'].update(type='TinyBRNBackbone', {})\n"
)
HOOK = "custom_hooks = [dict(type='BRNScheduleHook')]\n"


def test_layers_without_the_hook_are_refused(project, train, capsys):
    assert train([project.write_config(MODEL.format(''))]) == 2
    error = capsys.readouterr().err
    assert 'the model has 1 BRN layers (backbone.bn first) that stay batch norms' in error
    assert "add dict(type='BRNScheduleHook') to custom_hooks" in error
    assert 'Traceback' not in error


def test_with_the_hook_or_bounds_of_its_own_it_trains(project, train):
    assert train([project.write_config(MODEL.format('') + HOOK)]) == 0
    assert 'BRN: r_max up to 3 and d_max up to 5 in 1 layers' in project.log()
    assert train([project.write_config(MODEL.format('r_max=2'))]) == 0
