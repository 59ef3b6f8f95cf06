"""Learning rate and weight decay of each parameter under NormOptimWrapperConstructor."""

import pytest
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from normplug import IBN, SN
from normplug.optim import NormOptimWrapperConstructor

LR, DECAY = 0.5, 0.25


class Net(nn.Module):
    def __init__(self, norm=SN):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.bn = nn.BatchNorm2d(4)
        self.block = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), norm(4))


def options(net, paramwise=None, constructor='NormOptimWrapperConstructor', **optimizer):
    """Parameter name → (lr, weight decay), each parameter being in exactly one group."""
    cfg = {
        'constructor': constructor,
        'optimizer': {'type': 'SGD', 'lr': LR, 'weight_decay': DECAY, **optimizer},
    }
    if paramwise is not None:
        cfg['paramwise_cfg'] = paramwise
    names = {parameter: name for name, parameter in net.named_parameters()}
    found = {}
    for group in build_optim_wrapper(net, cfg).optimizer.param_groups:
        for parameter in group['params']:
            assert names[parameter] not in found
            found[names[parameter]] = (group['lr'], group['weight_decay'])
    return found


NORMS = ('bn.weight', 'bn.bias', 'block.1.weight', 'block.1.bias')
LOGITS = ('block.1.mean_weight', 'block.1.var_weight')


def base_but(changes):
    """The same for a Net of SN in which only the named parameters differ from the base."""
    base = {name: (LR, DECAY) for name, _ in Net().named_parameters()}
    assert changes.keys() <= base.keys()
    return base | changes


@pytest.mark.parametrize('paramwise', [None, {}])
def test_without_options_all_are_equal(paramwise):
    assert options(Net(), paramwise) == base_but({})


def test_norm_decay_reaches_ours_and_torchs():
    got = options(Net(), {'norm_decay_mult': 0.5})
    assert got == base_but(dict.fromkeys(NORMS + LOGITS, (LR, DECAY * 0.5)))


def test_ratio_options_reach_the_logits_alone():
    got = options(Net(), {'ratio_lr_mult': 0.1, 'ratio_decay_mult': 0.0})
    assert got == base_but(dict.fromkeys(LOGITS, (LR * 0.1, 0.0)))


def test_ratio_decay_overrules_norm_decay():
    got = options(Net(), {'norm_decay_mult': 0.0, 'ratio_decay_mult': 2.0})
    assert got == base_but(
        {**dict.fromkeys(NORMS, (LR, 0.0)), **dict.fromkeys(LOGITS, (LR, DECAY * 2))}
    )


def test_ratio_lr_leaves_norm_decay():
    got = options(Net(), {'norm_decay_mult': 0.0, 'ratio_lr_mult': 0.1})
    assert got == base_but(
        {**dict.fromkeys(NORMS, (LR, 0.0)), **dict.fromkeys(LOGITS, (LR * 0.1, 0.0))}
    )


def test_bias_options_treat_ours_as_torchs_norms():
    paramwise = {'bias_lr_mult': 2.0, 'bias_decay_mult': 0.0, 'norm_decay_mult': 0.5}
    got = options(Net(), paramwise)
    assert got == base_but(
        {'conv.bias': (LR * 2, 0.0), **dict.fromkeys(NORMS + LOGITS, (LR, DECAY * 0.5))}
    )


def test_norm_bias_lr_reaches_beta_of_ours_and_torchs_alone():
    got = options(Net(), {'norm_bias_lr_mult': 2.0, 'norm_decay_mult': 0.0})
    assert got == base_but(
        {
            **dict.fromkeys(NORMS + LOGITS, (LR, 0.0)),
            **dict.fromkeys(('bn.bias', 'block.1.bias'), (LR * 2, 0.0)),
        }
    )


@pytest.mark.parametrize('norm', [lambda c: nn.GroupNorm(2, c), nn.BatchNorm2d, IBN])
def test_norm_bias_lr_reaches_the_betas_of_other_norms(norm):
    got = options(Net(norm), {'norm_bias_lr_mult': 2.0})
    assert {name for name, (lr, _) in got.items() if lr == LR * 2} == {
        name for name in got if name.endswith('bias') and name != 'conv.bias'
    }


def test_custom_keys_overrule_norm_bias_lr():
    paramwise = {'norm_bias_lr_mult': 2.0, 'custom_keys': {'block': {'lr_mult': 0.1}}}
    got = options(Net(), paramwise)
    assert got['block.1.bias'][0] == LR * 0.1
    assert got['bn.bias'][0] == LR * 2


@pytest.mark.parametrize(
    'paramwise',
    [
        {'norm_decay_mult': 0.5},
        {'bias_lr_mult': 2.0, 'bias_decay_mult': 0.0},
        {'flat_decay_mult': 0.0},
        {'custom_keys': {'block': {'lr_mult': 0.1}}, 'norm_decay_mult': 0.5},
    ],
    ids=lambda paramwise: '+'.join(paramwise),
)
def test_ibn_gets_what_mmengine_gives_a_batch_norm(paramwise):
    want = options(Net(nn.BatchNorm2d), paramwise, 'DefaultOptimWrapperConstructor')
    assert options(Net(IBN), paramwise) == want


def test_custom_keys_come_first():
    paramwise = {
        'custom_keys': {'block': {'lr_mult': 0.1}, 'var_weight': {'decay_mult': 3.0}},
        'norm_decay_mult': 0.0,
        'ratio_lr_mult': 0.2,
        'ratio_decay_mult': 0.0,
    }
    block = {name: (LR * 0.1, DECAY) for name in base_but({}) if name.startswith('block')}
    got = options(Net(), paramwise)
    assert got == base_but(
        {**block, LOGITS[1]: (LR, DECAY * 3), 'bn.weight': (LR, 0.0), 'bn.bias': (LR, 0.0)}
    )


@pytest.mark.parametrize('paramwise', [{'norm_decay_mult': 0.5}, {'ratio_lr_mult': 0.1}])
def test_what_needs_no_gradient_is_left_out(paramwise):
    net = Net()
    net.block[1].requires_grad_(False)
    assert options(net, paramwise).keys() == {n for n in base_but({}) if 'block.1' not in n}
    frozen = Net(lambda c: SN(c, frozen=True))
    assert options(frozen, paramwise).keys() == {n for n in base_but({}) if 'block.1' not in n}


def test_a_layer_shared_by_two_modules_with_bypass_duplicate():
    net = Net()
    net.again = net.block[1]
    got = options(net, {'bypass_duplicate': True, 'ratio_decay_mult': 0.0})
    assert got == base_but(dict.fromkeys(LOGITS, (LR, 0.0)))


@pytest.mark.parametrize(
    ('key', 'hint'),
    [
        ('ratio_lr', r'did you mean ratio_lr_mult\?'),
        ('norm_weight_decay_mult', r'did you mean norm_decay_mult\?'),
        ('xyz', 'known: bias_decay_mult, .*ratio_lr_mult'),
    ],
)
def test_unknown_option(key, hint):
    with pytest.raises(ValueError, match=rf"paramwise_cfg has no option '{key}'; {hint}"):
        options(Net(), {key: 0.1})


@pytest.mark.parametrize(
    ('option', 'base'), [('ratio_lr_mult', 'lr'), ('ratio_decay_mult', 'weight_decay')]
)
def test_multiple_of_what_is_not_given(option, base):
    message = rf'paramwise_cfg\.{option} multiplies optim_wrapper\.optimizer\.{base}, which is not'
    with pytest.raises(ValueError, match=message):
        options(Net(), {option: 0.1}, **{base: None})


@pytest.mark.parametrize('option', ['ratio_lr_mult', 'ratio_decay_mult'])
@pytest.mark.parametrize('value', ['0.1', -0.1, float('nan')])
def test_what_is_no_multiple(option, value):
    with pytest.raises(ValueError, match=rf'paramwise_cfg\.{option} must be a number from 0, got'):
        options(Net(), {option: value})


def test_logs_the_groups(caplog):
    logger = MMLogger.get_instance('optim', logger_name='optim')
    logger.addHandler(caplog.handler)
    try:
        options(Net(), {'norm_decay_mult': 0.0, 'ratio_lr_mult': 0.1})
    finally:
        logger.removeHandler(caplog.handler)
    assert [m for m in caplog.messages if m.startswith('optimizer:')] == [
        'optimizer: 3 tensors with lr 0.5, weight decay 0.25',
        'optimizer: 4 tensors with lr 0.5, weight decay 0',
        'optimizer: 2 tensors with lr 0.05, weight decay 0',
    ]
    assert 'paramwise_options -- block.1.var_weight:lr=0.05 by ratio_lr_mult' in caplog.messages


def test_registered_in_the_root():
    registered = OPTIM_WRAPPER_CONSTRUCTORS.module_dict['NormOptimWrapperConstructor']
    assert registered is NormOptimWrapperConstructor
