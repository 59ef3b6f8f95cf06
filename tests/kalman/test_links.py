"""Links against the true graph: of small nets by hand, of mm's models by their construction."""

from copy import deepcopy

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from normplug import KN, SyncKN, link_kalman

UNKNOWN = 'no normalizer before it could be followed to its input'


def links(model, *inputs, forward=None):
    """Layer → (predecessors, convolutions), or the reason why there are none."""
    reports = link_kalman(model, forward or (lambda: model(*inputs)))
    reasons = {r.name: r.reason.partition(': the path ends at')[0] for r in reports}
    return {r.name: reasons[r.name] or (set(r.predecessors), list(r.through)) for r in reports}


def end_of_path(model, *inputs, layer):
    """Where the path to a layer ended, as its reason tells."""
    (report,) = (r for r in link_kalman(model, lambda: model(*inputs)) if r.name == layer)
    return report.reason.partition(': the path ends at ')[2]


def conv(a, b, **options):
    return nn.Conv2d(a, b, 3, padding=1, **options)


IMAGE = torch.randn(2, 3, 8, 8)


@pytest.mark.parametrize(
    'between',
    [
        [nn.ReLU()],
        [nn.ReLU(inplace=True)],
        [nn.ReLU6(), nn.Identity()],
        [nn.SiLU(), nn.Dropout(0.0)],
        [nn.ReLU(), nn.MaxPool2d(3, 2, 1)],
        [nn.GELU(), nn.AvgPool2d(2)],
        [],
    ],
    ids=lambda b: '-'.join(type(m).__name__ for m in b) or 'nothing',
)
def test_followed(between):
    net = nn.Sequential(conv(3, 4), KN(4), *between, conv(4, 5), KN(5))
    second = 3 + len(between)
    assert links(net, IMAGE) == {'1': UNKNOWN, f'{second}': ({'1'}, [f'{second - 1}'])}
    net(IMAGE).square().sum().backward()  # the prediction can be computed
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize(
    ('between', 'end'),
    [
        (nn.Dropout(0.5), 'torch.nn.functional.dropout'),
        (nn.RReLU(), 'torch.nn.functional.rrelu'),  # other slopes in each forward
        (nn.BatchNorm2d(4), 'torch.nn.functional.batch_norm'),
        (nn.Softmax(1), 'torch.nn.functional.softmax'),
        (nn.Upsample(scale_factor=2), 'torch.nn.functional.interpolate'),
        (nn.AdaptiveAvgPool2d(1), 'torch.nn.functional.adaptive_avg_pool2d'),
        (nn.ConvTranspose2d(4, 4, 3), 'torch.nn.functional.conv_transpose2d'),
    ],
    ids=lambda b: type(b).__name__,
)
def test_not_followed(between, end):
    net = nn.Sequential(conv(3, 4), KN(4), between, conv(4, 5), nn.ReLU(), KN(5))
    assert links(net, IMAGE) == {'1': UNKNOWN, '5': UNKNOWN}
    assert end_of_path(net, IMAGE, layer='5') == end
    assert end_of_path(net, IMAGE, layer='1') == ''


class Lambda(nn.Module):
    def __init__(self, function, **children):
        super().__init__()
        self.function = function
        for name, child in children.items():
            self.add_module(name, child)

    def forward(self, *inputs):
        return self.function(self, *inputs)


def two(**more):
    return dict(conv1=conv(3, 4), norm1=KN(4), conv2=conv(4, 4), norm2=KN(4), **more)


def test_a_change_in_place_that_is_not_known():
    def forward(net, x):
        y = net.norm1(net.conv1(x))
        y[:, 0] = 2
        return net.norm2(net.conv2(y))

    net = Lambda(forward, **two())
    assert links(net, IMAGE)['norm2'] == UNKNOWN
    assert end_of_path(net, IMAGE, layer='norm2') == 'a change in place'


@pytest.mark.parametrize('add', [torch.add, lambda a, b: a + b, lambda a, b: a.add_(b)])
def test_residual(add):
    def forward(net, x):
        y = net.norm1(net.conv1(x)).relu()
        y = add(net.norm2(net.conv2(y)), y).relu()
        return net.norm3(net.conv3(y))

    net = Lambda(forward, **two(conv3=conv(4, 5), norm3=KN(5)))
    assert links(net, IMAGE)['norm3'] == ({'norm1', 'norm2'}, ['conv3'])


def test_a_sum_with_something_unknown():
    def forward(net, x):
        y = net.norm1(net.conv1(x))
        return net.norm2(net.conv2(y + y.mean()))

    assert links(Lambda(forward, **two()), IMAGE)['norm2'] == UNKNOWN


def test_concatenation():
    def forward(net, x):
        a = net.norm1(net.conv1(x))
        b = net.norm2(net.conv2(a.relu()))
        return net.norm3(torch.cat([a, b], dim=1))

    net = Lambda(forward, **two(norm3=KN(8)))
    assert links(net, IMAGE)['norm3'] == ({'norm1', 'norm2'}, [])


def test_before_activation():
    """The released network's order: what a layer observes is the state of its input too."""

    def forward(net, x):
        x = net.conv1(x)
        y = net.conv2(net.norm1(x).relu())
        return net.norm2(x + y)

    assert links(Lambda(forward, **two()), IMAGE)['norm2'] == ({'norm1'}, ['conv2'])


def test_the_log_names_a_shortcuts_convolution():
    net = nn.Sequential(conv(3, 4), KN(4), nn.Sequential(conv(4, 4), KN(4)))
    assert str(link_kalman(net, lambda: net(IMAGE))[1]) == '2.1 ← 1 through 2.0'


def test_a_head_shared_over_levels():
    def forward(net, x):
        return [net.norm2(net.conv2(net.norm1(net.conv1(level)))) for level in (x, x[..., ::2])]

    several = 'it runs several times in a forward'
    assert links(Lambda(forward, **two()), IMAGE) == {'norm1': several, 'norm2': several}


def test_behind_a_layer_that_runs_twice():
    def forward(net, x):
        return net.norm2(net.conv2(net.norm1(net.conv1(x)) + net.norm1(net.conv1(-x))))

    got = links(Lambda(forward, **two()), IMAGE)['norm2']
    assert got == 'norm1 before it runs several times in a forward'


def test_a_convolution_shared_by_separate_norms():
    def forward(net, x):
        y = net.norm1(net.conv1(x))
        return (
            net.norm2(net.conv2(y)),
            net.norm3(net.conv2(y.flip(-1))),
            net.norm4(net.conv2(y.relu())),
        )

    got = links(Lambda(forward, **two(norm3=KN(4), norm4=KN(4))), IMAGE)
    assert got['norm2'] == got['norm4'] == ({'norm1'}, ['conv2'])
    assert got['norm3'] == UNKNOWN


class TwiceAsWide(nn.Conv2d):
    """Another geometry than its attributes say."""

    def forward(self, x):
        return nn.functional.conv2d(x, self.weight, self.bias, self.stride, self.padding, 2)


class Rectifying(KN):
    def forward(self, x):
        return super().forward(x).relu()


def test_a_convolution_that_is_not_as_its_attributes_say():
    conv_ws = pytest.importorskip('mmcv.cnn.bricks.conv_ws')
    for second in (TwiceAsWide(4, 4, 3, padding=1), conv_ws.ConvAWS2d(4, 4, 3, padding=1)):
        net = nn.Sequential(conv(3, 4), KN(4), second, KN(4))
        assert end_of_path(net, IMAGE, layer='3') == 'torch.nn.functional.conv2d'


def test_a_normalizer_that_does_more():
    net = nn.Sequential(conv(3, 4), Rectifying(4), conv(4, 4), KN(4))
    first, second = link_kalman(net, lambda: net(IMAGE))
    assert first.reason == 'Rectifying has a forward of its own'
    assert second.reason == f'{UNKNOWN}: the path ends at 1, which has a forward of its own'


@pytest.mark.parametrize('known', [True, False])
def test_a_hook_behind_a_normalizer(known):
    """What it makes of the output is followed, or not, as any other function."""
    net = nn.Sequential(conv(3, 4), KN(4), conv(4, 4), KN(4))
    net[1].register_forward_hook(lambda layer, args, y: y.relu() if known else y.softmax(1))
    end = end_of_path(net, IMAGE, layer='3')
    assert end == ('' if known else 'torch.Tensor.softmax')
    if known:
        convolved = net[3].link._prior
        assert convolved.parts[0].function is nn.functional.relu


def test_synchronized_and_not():
    net = nn.Sequential(conv(3, 4), KN(4), conv(4, 4), SyncKN(4))
    assert links(net, IMAGE)['3'] == 'of it and 1 before it, only one is synchronized'


def test_what_does_not_run():
    net = Lambda(lambda net, x: net.norm1(net.conv1(x)), **two())
    assert links(net, IMAGE)['norm2'] == 'it did not run in the forward that was followed'


def test_a_call_by_keyword():
    net = Lambda(lambda net, x: net.norm2(x=net.conv2(net.norm1(x=net.conv1(x)))), **two())
    assert links(net, IMAGE)['norm2'] == ({'norm1'}, ['conv2'])


def test_linking_leaves_a_momentum_encoder_alone():
    """It moves in forward; and a buffer that is registered anew there."""

    def forward(net, x):
        for target, online in zip(net.norm1.parameters(), net.norm2.parameters(), strict=True):
            target.data.lerp_(online.data, 0.1)
        net.register_buffer('seen', torch.ones(3))
        return net.norm2(net.conv2(net.norm1(net.conv1(x))))

    net = Lambda(forward, **two())
    net.register_buffer('seen', torch.zeros(2))
    nn.init.normal_(net.norm2.weight)
    before = deepcopy(net.state_dict())
    links(net, IMAGE)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_net_without_kn():
    assert link_kalman(nn.Sequential(conv(3, 4), nn.BatchNorm2d(4)), None) == []


def resnet_links(name, blocks, bottleneck):
    """Of a ResNet in mm's names, from how it is built."""
    want = {f'{name}bn1': UNKNOWN}
    state = {f'{name}bn1'}
    for stage, depth in enumerate(blocks, 1):
        for block in range(depth):
            here = f'{name}layer{stage}.{block}.'
            before = state
            for i in range(1, 3 + bottleneck):
                want[f'{here}bn{i}'] = before, [f'{here}conv{i}']
                before = {f'{here}bn{i}'}
            if block == 0 and (stage > 1 or bottleneck):
                want[f'{here}downsample.1'] = state, [f'{here}downsample.0']
                state = {f'{here}downsample.1'}
            state = state | before
    return want


BACKBONE = dict(depth=50, base_channels=4, stem_channels=4, norm_cfg=dict(type='KN'))


def detector():
    from mmengine.hub import get_config

    init_default_scope('mmdet')
    cfg = get_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py').model
    norm_cfg = dict(type='KN')
    cfg.backbone.update(**BACKBONE, norm_eval=False, frozen_stages=-1, init_cfg=None)
    cfg.neck.update(norm_cfg=norm_cfg, in_channels=[16, 32, 64, 128], out_channels=8)
    cfg.rpn_head.update(in_channels=8, feat_channels=8)
    box, mask = cfg.roi_head.bbox_head, cfg.roi_head.mask_head
    box.update(type='Shared4Conv1FCBBoxHead', in_channels=8, conv_out_channels=8, fc_out_channels=8)
    mask.update(in_channels=8, conv_out_channels=8, norm_cfg=norm_cfg)
    box.norm_cfg = norm_cfg
    for part in (cfg.roi_head.bbox_roi_extractor, cfg.roi_head.mask_roi_extractor):
        part.out_channels = 8
    return MODELS.build(cfg).train()


@pytest.mark.slow
def test_mask_rcnn():
    pytest.importorskip('mmdet')
    from mmdet.testing import demo_mm_inputs

    model = detector()
    batch = demo_mm_inputs(2, [[3, 64, 64], [3, 60, 64]], with_mask=True)

    def forward():
        data = model.data_preprocessor(deepcopy(batch), True)
        return model._run_forward(data, mode='loss')

    want = resnet_links('backbone.', (3, 4, 6, 3), bottleneck=1)
    for level, last in enumerate(('layer1.2', 'layer2.3', 'layer3.5', 'layer4.2')):
        name = f'neck.lateral_convs.{level}.bn'
        want[name] = f'backbone.{last}.bn3 before it is in another part of the model'
        want[f'neck.fpn_convs.{level}.bn'] = UNKNOWN  # it merges levels
    # Nothing is merged into the smallest map.
    top = 'neck.fpn_convs.3.'
    want[f'{top}bn'] = {'neck.lateral_convs.3.bn'}, [f'{top}conv']
    for head in ('bbox_head.shared_convs', 'mask_head.convs'):
        want[f'roi_head.{head}.0.bn'] = UNKNOWN
        for i in range(1, 4):
            here = f'roi_head.{head}.{i}.'
            want[f'{here}bn'] = {f'roi_head.{head}.{i - 1}.bn'}, [f'{here}conv']
    assert links(model, forward=forward) == want
    # And it trains: every parameter has a finite gradient.
    data = model.data_preprocessor(deepcopy(batch), True)
    model.parse_losses(model._run_forward(data, mode='loss'))[0].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.slow
def test_fcn_d8():
    pytest.importorskip('mmseg')
    from mmengine.hub import get_config
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    init_default_scope('mmseg')
    cfg = get_config('mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py').model
    cfg.backbone.update(BACKBONE, init_cfg=None)
    cfg.backbone.pop('contract_dilation')
    cfg.pretrained = None
    for head, channels in ((cfg.decode_head, 128), (cfg.auxiliary_head, 64)):
        head.update(in_channels=channels, channels=4, norm_cfg=dict(type='KN'))
    cfg.backbone.type = 'ResNetV1c'
    model = MODELS.build(cfg).train()
    image = torch.randn(2, 3, 64, 64)
    label = PixelData(data=torch.zeros(1, 64, 64, dtype=torch.long))
    samples = [SegDataSample(gt_sem_seg=label, metainfo=dict(img_shape=(64, 64)))] * 2
    got = links(model, forward=lambda: model(image, samples, mode='loss'))

    want = resnet_links('backbone.', (3, 4, 6, 3), bottleneck=1)
    del want['backbone.bn1']  # of the deep stem of V1c:
    want['backbone.stem.1'] = UNKNOWN
    want['backbone.stem.4'] = {'backbone.stem.1'}, ['backbone.stem.3']
    want['backbone.stem.7'] = {'backbone.stem.4'}, ['backbone.stem.6']
    for name in ('bn1', 'downsample.1'):
        through = want[f'backbone.layer1.0.{name}'][1]
        want[f'backbone.layer1.0.{name}'] = {'backbone.stem.7'}, through
    other = 'bn3 before it is in another part of the model'
    want['decode_head.convs.0.bn'] = f'backbone.layer4.2.{other}'
    want['decode_head.convs.1.bn'] = {'decode_head.convs.0.bn'}, ['decode_head.convs.1.conv']
    # Of the input and what was made of it, concatenated.
    want['decode_head.conv_cat.bn'] = f'backbone.layer4.2.{other}'
    want['auxiliary_head.convs.0.bn'] = f'backbone.layer3.5.{other}'
    assert got == want


@pytest.mark.slow
def test_yolox():
    """Of Swish, as x * sigmoid(x)."""
    pytest.importorskip('mmdet')
    init_default_scope('mmdet')
    shared = dict(norm_cfg=dict(type='KN'), act_cfg=dict(type='Swish'))
    width = dict(deepen_factor=0.33, widen_factor=0.125)
    sizes = dict(in_channels=[32, 64, 128], out_channels=16, num_csp_blocks=1)
    head = dict(num_classes=2, in_channels=16, feat_channels=16)
    parts = [
        MODELS.build(dict(type=kind, **options, **shared))
        for kind, options in (('CSPDarknet', width), ('YOLOXPAFPN', sizes), ('YOLOXHead', head))
    ]
    net = nn.ModuleDict(dict(zip(('backbone', 'neck', 'bbox_head'), parts, strict=True)))
    net.train()
    got = links(net, forward=lambda: parts[2](parts[1](parts[0](torch.randn(2, 3, 64, 64)))))
    assert len(got) == 74
    kinds = [reason if isinstance(reason, str) else 'linked' for reason in got.values()]
    assert kinds.count('linked') == 62
    assert kinds.count(UNKNOWN) == 1 + 4  # the first, and those behind an upsampled map
    assert sum(kind.endswith('is in another part of the model') for kind in kinds) == 7


def test_efficientnet():
    """Its gates are data of another kind, and it pads outside of its convolutions."""
    pytest.importorskip('mmpretrain')
    init_default_scope('mmpretrain')
    net = MODELS.build(dict(type='EfficientNet', arch='b0', norm_cfg=dict(type='KN')))
    net.train()
    reports = link_kalman(net, lambda: net(torch.randn(2, 3, 64, 64)))
    ends = [report.reason.rpartition(' ends at ')[2] for report in reports]
    assert ends.count('') == 16
    assert ends.count('torch.nn.functional.pad') == ends.count('torch.Tensor.mul') == 16
    assert len(ends) == 49
