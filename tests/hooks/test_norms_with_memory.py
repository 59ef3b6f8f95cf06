"""What norms keep from one batch to the next is in the checkpoint: BRN, MABN, EstBCN."""

from mmengine.registry import MODELS
from torch import nn

from normplug.norms import BRN, MABN, EstBCN
from tests.hooks import tiny_training as tiny


@MODELS.register_module()
class Remembering(tiny.NoisyModel):
    """All of them in a row; MABN is past its warm-up when the training is killed."""

    def __init__(self, **options):
        super().__init__(**options)
        self.before = nn.Sequential(
            BRN(3),
            nn.Conv2d(3, 4, 1),
            MABN(4, window=3, warmup=2),
            nn.Conv2d(4, 3, 1),
            EstBCN(3, num_groups=1, speed=0.2),
        )

    def forward(self, image, label, index, mode='tensor'):
        return super().forward(self.before(image), label, index, mode)


def registered(cfg):
    """The forked process has this module, which registers the model."""


def test_killed_and_resumed_is_the_same_to_the_last_bit(tmp_path):
    cfgs = []
    for name in ('alone', 'killed'):
        cfg = tiny.config(tmp_path / name, hooks=('SampleSeedHook', 'NormMemoryHook'))
        schedule = dict(type='BRNScheduleHook', begin=2, d_end=10, r_end=20, length=24)
        cfg.custom_hooks = [*cfg.custom_hooks, schedule]
        cfg.model = dict(type='Remembering')
        cfgs.append(cfg)
    assert tiny.train_apart(cfgs[0], prepare=registered) == 0
    assert tiny.train_apart(cfgs[1], prepare=registered, kill_before=15) == -9
    assert tiny.train_apart(cfgs[1], prepare=registered, resume=True) == 0
    one, other = (tiny.load(tmp_path / name) for name in ('alone', 'killed'))
    tiny.assert_same_training(one, other)
    assert one['state_dict']['before.2.gradient_window'].abs().min() > 0
    assert 1 < one['state_dict']['before.0.r_max'] < 3.1
