"""The rows of practice: one recipe, and weights of batch norm that arrive in each norm."""

import pytest

from tests.configs.loading import build, load
from tests.configs.rows_practice import BACKBONES, NETWORKS, config
from tests.configs.scales import differences

FROZEN = {'norm_eval', 'frozen_stages'}
HOOKS = {'ssn': ['SSNRadiusHook', 'RatioGradClipHook'], 'kn': ['KalmanLinkHook']}


@pytest.mark.parametrize('data', NETWORKS)
@pytest.mark.parametrize('row', [row for row in BACKBONES if row != 'bn'])
def test_rows_differ_in_the_backbones_norms_alone(row, data):
    bn, other = load(config('bn', data)), load(config(row, data))
    found = set(differences(bn, other))
    keys = {key.split('.')[2] for key in found if key.startswith('model.backbone.')}
    allowed = {'type', 'norm_cfg', 'ibn_cfg'} | (FROZEN if row == 'frozen-bn' else set())
    assert keys <= allowed
    rest = {key.split('.')[0] for key in found if not key.startswith('model.backbone.')}
    assert rest <= {'custom_hooks', *(['optim_wrapper'] if row == 'ssn' else [])}
    added = [hook.type for hook in other.custom_hooks[len(bn.custom_hooks) :]]
    assert added == HOOKS.get(row, [])


@pytest.mark.parametrize('data', NETWORKS)
def test_one_image_sees_as_many_images_at_half_the_rate(data):
    two, one = load(config('sn', data)), load(config('sn', data, images=1))
    assert (two.train_dataloader.batch_size, one.train_dataloader.batch_size) == (2, 1)
    assert two.optim_wrapper.optimizer.lr == 2 * one.optim_wrapper.optimizer.lr
    assert two.auto_scale_lr.base_batch_size == 2 * one.auto_scale_lr.base_batch_size
    assert one.param_scheduler[0].end == 2 * two.param_scheduler[0].end
    assert one.train_cfg == two.train_cfg


@pytest.mark.parametrize('row', BACKBONES)
def test_the_weights_of_batch_norm_fit_by_name(row):
    """All but the group norms' take them; what is new are ratios and the like."""

    def names(row):
        # Without values: a ResNet-50 takes a second to fill.
        state = build(load(config(row, 'trees')), values=False).backbone.state_dict()
        return {name: value.shape for name, value in state.items()}

    bn, other = names('bn'), names(row)
    taken = {name for name in bn if other.get(name) == bn[name]}
    norms = {name for name in bn if '.bn' in f'.{name}' or 'downsample.1' in name}
    if row == 'gn':
        # One layer of each shortcut has its name by its place.
        shortcut = {
            f'layer{k}.0.downsample.1.{name}' for k in (1, 2, 3, 4) for name in ('weight', 'bias')
        }
        assert taken == (bn.keys() - norms) | shortcut
    elif row == 'ibn-a':
        # Statistics of the half that stays under batch norm: the layer takes its part of BN's.
        blocks = [(stage, k) for stage, n in ((1, 3), (2, 4), (3, 6)) for k in range(n)]
        assert bn.keys() - taken == {
            f'layer{stage}.{k}.bn1.{name}'
            for stage, k in blocks
            for name in ('running_mean', 'running_var')
        }
    else:
        assert taken == bn.keys()
