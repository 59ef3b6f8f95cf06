"""PN layers whose population is estimated, and the hook that does it, need each other."""

MODEL = (
    "custom_imports['imports'].append('normplug')\n"
    "model['backbone'].update(type='TinyPNBackbone', warmup=1, population='{}')\n"
)
HOOK = "custom_hooks = [dict(type='PopulationHook', interval=2, num_batches=1)]\n"


def test_training_estimates(project, train):
    assert train([project.write_config(MODEL.format('estimated') + HOOK)]) == 0
    log = project.log()
    assert 'population: mean and variance of 1 layers, estimated from 1 batches' in log
    start = 'statistics of the batch for the first 1 batches, then the estimated population'
    assert f'PN: 1 layers: {start}' in log


def test_layers_without_the_hook_are_refused(project, train, capsys):
    assert train([project.write_config(MODEL.format('estimated'))]) == 2
    error = capsys.readouterr().err
    assert "the model has 1 PN layers of population='estimated' (backbone.bn first)" in error
    assert "add dict(type='PopulationHook') to custom_hooks" in error
    assert 'Traceback' not in error


def test_the_hook_without_layers_is_refused(project, train, capsys):
    assert train([project.write_config(MODEL.format('running') + HOOK)]) == 1
    error = capsys.readouterr().err
    assert 'training stopped: PopulationHook: the model has no PN that it could' in error


def test_wrong_arguments_are_refused_by_their_key(project, refuses, train):
    text = MODEL.format('estimated') + HOOK.replace('num_batches=1', 'num_batches=0')
    refuses(train, [project.write_config(text)], 'num_batches must be an integer from 1, got 0')
