"""mmengine's EMAHook averages models with normalizers of ours. (SSN: test_ssn_radius.py)"""

import mmengine.runner.runner
import pytest
import torch
from mmengine.hooks import Hook

from tests.hooks import tiny_training as tiny

MOMENTUM = 0.1


class CallHook(Hook):
    """Calls a function after each iteration."""

    def __init__(self, function):
        self.function = function

    def after_train_iter(self, *args, **kwargs):
        self.function()


@pytest.mark.slow
@pytest.mark.parametrize('update_buffers', [True, False])
@pytest.mark.parametrize('norm', ['SN', 'IBN', 'SSN', 'PortableSyncBN'])
def test_averaged_parameters_and_buffers(tmp_path, monkeypatch, norm, update_buffers):
    monkeypatch.setattr(mmengine.runner.runner, 'collect_env', dict)  # asks compilers for a second
    cfg = tiny.config(tmp_path / norm)
    cfg.experiment_name = f'{tmp_path.name}-{norm}'  # of which mmengine keeps one logger
    cfg.model.norm = norm
    ema = {'type': 'EMAHook', 'ema_type': 'ExponentialMovingAverage', 'momentum': MOMENTUM}
    cfg.custom_hooks = [*cfg.custom_hooks, {**ema, 'update_buffers': update_buffers}]
    runner = tiny.build(cfg)
    want = {}

    def average(*_):
        for name, value in runner.model.norm.state_dict().items():
            if name not in want or not value.is_floating_point():
                want.setdefault(name, value.clone())
            elif 'running' in name and not update_buffers:
                want[name] = value.clone()
            else:
                want[name] += MOMENTUM * (value - want[name])

    # After the step of each iteration, as the hook.
    runner.register_hook(CallHook(average))
    runner.train()
    (hook,) = (hook for hook in runner.hooks if type(hook).__name__ == 'EMAHook')
    averaged = hook.ema_model.module.norm
    for name, value in averaged.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, want[name], rtol=1e-5, atol=1e-6, msg=name)
    assert not torch.equal(averaged.weight, runner.model.norm.weight)
    # It is an equal citizen: it normalizes, and a checkpoint has it for its model.
    assert torch.isfinite(averaged.eval()(torch.randn(2, 4, 3, 3))).all()
    saved = tiny.load(tmp_path / norm)['state_dict']
    for name, value in averaged.state_dict().items():
        assert torch.equal(saved[f'norm.{name}'], value), name
