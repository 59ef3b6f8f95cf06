"""The families of the model zoos: one config of each, and how it is made small."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """One config of a family.

    Attributes:
        scope: the package.
        config: name in the package's configs.
        norm: type of the normalizer.
        norm_options: its arguments that are not the default.
        factor: what the channels are divided by; 1 where an architecture's name fixes them.
        size: width and height of the images.
        options: keys of the model as in ``--cfg-options``, after it was made small.
        placement: patterns of the norm layers that no `norm_cfg` reaches, for NormPlacement.
        semantic: lowest class in a detector's label maps, what all are below, and their stride.
        teacher: config of the network that it learns from.
        untouched: whether it has layer norms only, which a `norm_cfg` of ours leaves alone.
    """

    scope: str
    config: str
    norm: str = 'SN'
    norm_options: dict[str, Any] = field(default_factory=dict)
    factor: int = 8
    size: int = 64
    options: dict[str, Any] = field(default_factory=dict)
    placement: tuple[str, ...] = ()
    semantic: tuple[int, int, int] = (0, 10, 1)
    teacher: str | None = None
    untouched: bool = False

    def norm_cfg(self) -> dict[str, Any]:
        return dict(type=self.norm, **self.norm_options)

    def __str__(self) -> str:
        return f'{self.scope}-{self.config.removesuffix(".py")}-{self.norm}'


def det(config: str, **how: Any) -> Case:
    return Case('mmdet', f'{config}.py', **how)


def seg(config: str, **how: Any) -> Case:
    return Case('mmseg', f'{config}.py', **how)


def cls(config: str, **how: Any) -> Case:
    return Case('mmpretrain', f'{config}.py', size=32, **how)


# Untrained boxes lie outside the image, where mmdet cannot paste a mask.
CLIPPED = {f'roi_head.bbox_head.{i}.bbox_coder.clip_border': True for i in range(6)}
# The bbox head's num_params is the size of this network.
BOXINST = {
    'mask_head.num_layers': 3,
    'mask_head.feat_channels': 16,
    'mask_head.mask_feature_head.out_channels': 16,
}
# mmdet leaves these weights as the memory was, for a checkpoint to fill.
TRIDENT = {
    'backbone.init_cfg': dict(_delete_=True, type='Kaiming', layer='TridentConv'),
    'train_cfg.rcnn.sampler.num': 4,  # three branches, each with a stage of the backbone
}

DETECTION = [
    det('atss/atss_r50_fpn_1x_coco'),
    det('autoassign/autoassign_r50-caffe_fpn_1x_coco'),
    det('boxinst/boxinst_r50_fpn_ms-90k_coco', options=BOXINST),
    det('carafe/faster-rcnn_r50_fpn-carafe_1x_coco'),
    det('cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco'),
    det('cascade_rpn/cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco'),
    det('centernet/centernet-update_r50-caffe_fpn_ms-1x_coco'),
    det('centernet/centernet_r18_8xb16-crop512-140e_coco', placement=('neck.*',)),
    det('condinst/condinst_r50_fpn_ms-poly-90k_coco_instance', options={'mask_head.num_layers': 3}),
    det('conditional_detr/conditional-detr_r50_8xb2-50e_coco', factor=1),
    det(
        'cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco',
        placement=('backbone.*', 'bbox_head.*_pool.*'),
    ),
    det('dab_detr/dab-detr_r50_8xb2-50e_coco'),
    det('dcn/faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco'),
    det('dcn/faster-rcnn_r50_fpn_dpool_1x_coco'),
    det('dcnv2/faster-rcnn_r50-mdconv-c3-c5_fpn_1x_coco'),
    det('ddod/ddod_r50_fpn_1x_coco'),
    det('ddq/ddq-detr-4scale_r50_8xb2-12e_coco'),
    det('deformable_detr/deformable-detr_r50_16xb2-50e_coco'),
    det('detectors/detectors_cascade-rcnn_r50_1x_coco', size=128),
    det('detr/detr_r50_8xb2-150e_coco'),
    det('dino/dino-4scale_r50_8xb2-12e_coco', factor=1),
    det(
        'double_heads/dh-faster-rcnn_r50_fpn_1x_coco', placement=('roi_head.bbox_head.res_block.*',)
    ),
    det('dyhead/atss_r50_fpn_dyhead_1x_coco', placement=('neck.1.*',)),
    det('dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco'),
    det('efficientnet/retinanet_effb3_fpn_8xb4-crop896-1x_coco', factor=1),
    det('empirical_attention/faster-rcnn_r50-attn1111_fpn_1x_coco'),
    det('faster_rcnn/faster-rcnn_r50_fpn_1x_coco'),
    det('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco'),
    det('foveabox/fovea_r50_fpn_gn-head-align_4xb4-2x_coco'),
    det('fpg/faster-rcnn_r50_fpg_crop640-50e_coco'),
    det('free_anchor/freeanchor_r50_fpn_1x_coco'),
    det('fsaf/fsaf_r50_fpn_1x_coco'),
    det('gcnet/mask-rcnn_r50-syncbn-gcb-r16-c3-c5_fpn_1x_coco'),
    det('gfl/gfl_r50_fpn_1x_coco'),
    det('ghm/retinanet_r50_fpn_ghm-1x_coco'),
    det('gn/mask-rcnn_r50_fpn_gn-all_2x_coco'),
    det('gn+ws/faster-rcnn_r50_fpn_gn-ws-all_1x_coco'),
    det('grid_rcnn/grid-rcnn_r50_fpn_gn-head_1x_coco', placement=('roi_head.grid_head.norm1',)),
    det('groie/mask-rcnn_r50_fpn_groie_1x_coco'),
    det('guided_anchoring/ga-retinanet_r50_fpn_1x_coco'),
    det('hrnet/faster-rcnn_hrnetv2p-w32-1x_coco'),
    det('htc/htc_r50_fpn_1x_coco', semantic=(0, 183, 8)),
    det('ld/ld_r18-gflv1-r101_fpn_1x_coco', teacher='gfl/gfl_r101_fpn_ms-2x_coco.py'),
    det('libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco'),
    det('mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic', semantic=(80, 133, 1)),
    det('mask_rcnn/mask-rcnn_r50-caffe-c4_1x_coco', factor=1),
    det('mask_rcnn/mask-rcnn_r50_fpn_1x_coco'),
    det('maskformer/maskformer_r50_ms-16xb1-75e_coco', semantic=(80, 133, 1)),
    det('ms_rcnn/ms-rcnn_r50_fpn_1x_coco'),
    det('nas_fcos/nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco', placement=('neck.*',)),
    det('nas_fpn/retinanet_r50_nasfpn_crop640-50e_coco', size=128),
    det('paa/paa_r50_fpn_1x_coco'),
    det('pafpn/faster-rcnn_r50_pafpn_1x_coco'),
    det('panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco', semantic=(0, 54, 1)),
    det('pisa/faster-rcnn_r50_fpn_pisa_1x_coco'),
    det(
        'point_rend/point-rend_r50-caffe_fpn_ms-1x_coco',
        options={'test_cfg.rcnn.subdivision_steps': 2},
    ),
    det('queryinst/queryinst_r50_fpn_1x_coco', options=CLIPPED),
    det('regnet/mask-rcnn_regnetx-3.2GF_fpn_1x_coco', factor=1),
    det('reppoints/reppoints-moment_r50_fpn-gn_head-gn_1x_coco'),
    det('res2net/faster-rcnn_res2net-101_fpn_2x_coco'),
    det('resnest/faster-rcnn_s50_fpn_syncbn-backbone+head_ms-range-1x_coco'),
    det('retinanet/retinanet_r50_fpn_1x_coco'),
    det('rpn/rpn_r50_fpn_1x_coco'),
    det('rtmdet/rtmdet_tiny_8xb32-300e_coco', factor=1),
    det('rtmdet/rtmdet-ins_tiny_8xb32-300e_coco', factor=1),
    det('sabl/sabl-faster-rcnn_r50_fpn_1x_coco'),
    det('scnet/scnet_r50_fpn_1x_coco'),
    det('solo/solo_r50_fpn_1x_coco', options={'test_cfg.mask_thr': 0.001}),
    det('solov2/solov2_r50_fpn_1x_coco'),
    det('sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco'),
    det('ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco', factor=1),
    det('strong_baselines/mask-rcnn_r50_fpn_rpn-2conv_4conv1fc_syncbn-all_lsj-100e_coco'),
    det('swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco', factor=1, untouched=True),
    det('tood/tood_r50_fpn_1x_coco'),
    det('tridentnet/tridentnet_r50-caffe_1x_coco', factor=1, options=TRIDENT),
    det('vfnet/vfnet_r50_fpn_1x_coco'),
    det('yolact/yolact_r50_1xb8-55e_coco'),
    det('yolo/yolov3_d53_8xb8-320-273e_coco', factor=1),
    det('yolof/yolof_r50-c5_8xb8-1x_coco', placement=('neck.*',)),
    det('yolox/yolox_tiny_8xb8-300e_coco', factor=1),
]

SEGMENTATION = [
    seg('ann/ann_r50-d8_4xb2-40k_cityscapes-512x1024'),
    seg('apcnet/apcnet_r50-d8_4xb2-40k_cityscapes-512x1024'),
    seg('bisenetv1/bisenetv1_r18-d32_4xb4-160k_cityscapes-1024x1024', placement=('backbone.*',)),
    seg(
        'bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024',
        factor=1,
        placement=('backbone.*',),
    ),
    seg('ccnet/ccnet_r50-d8_4xb2-40k_cityscapes-512x1024'),
    seg('cgnet/cgnet_fcn_4xb4-60k_cityscapes-680x680', factor=1),
    seg('danet/danet_r50-d8_4xb2-40k_cityscapes-512x1024'),
    seg(
        'ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024',
        factor=1,
        placement=('backbone.*',),
    ),
    seg('deeplabv3/deeplabv3_r50-d8_4xb2-40k_cityscapes-512x1024'),
    seg('deeplabv3plus/deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024'),
    seg('dmnet/dmnet_r50-d8_4xb2-40k_cityscapes-512x1024'),
    seg('dnlnet/dnl_r50-d8_4xb2-40k_cityscapes-512x1024'),
    seg('emanet/emanet_r50-d8_4xb2-80k_cityscapes-512x1024'),
    seg('encnet/encnet_r50-d8_4xb2-40k_cityscapes-512x1024'),
    seg('erfnet/erfnet_fcn_4xb4-160k_cityscapes-512x1024', factor=1, placement=('backbone.*',)),
    seg('fastfcn/fastfcn_r50-d32_jpu_aspp_4xb2-80k_cityscapes-512x1024'),
    seg('fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024', factor=1),
    seg('fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024'),
    seg('gcnet/gcnet_r50-d8_4xb2-40k_cityscapes-512x1024'),
    seg('hrnet/fcn_hr48_4xb2-40k_cityscapes-512x1024'),
    seg('icnet/icnet_r50-d8_4xb2-80k_cityscapes-832x832'),
    seg('isanet/isanet_r50-d8_4xb2-40k_cityscapes-512x1024'),
    seg('knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512'),
    seg('mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024'),
    seg(
        'mobilenet_v3/mobilenet-v3-d8-scratch-s_lraspp_4xb4-320k_cityscapes-512x1024',
        factor=1,
        size=400,
    ),
    seg('mobilenet_v2/mobilenet-v2-d8_fcn_4xb2-80k_cityscapes-512x1024', factor=1),
    seg('nonlocal_net/nonlocal_r50-d8_4xb2-40k_cityscapes-512x1024'),
    seg('ocrnet/ocrnet_hr48_4xb2-40k_cityscapes-512x1024'),
    seg('pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes', factor=1, placement=('backbone.*',)),
    seg('point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024'),
    seg(
        'psanet/psanet_r50-d8_4xb2-40k_cityscapes-512x1024',
        options={'decode_head.mask_size': (8, 8)},
    ),
    seg('pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024'),
    seg('poolformer/fpn_poolformer_s12_8xb4-40k_ade20k-512x512', factor=1),
    seg('segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024', factor=1),
    seg('segmenter/segmenter_vit-s_mask_8xb1-160k_ade20k-512x512', untouched=True),
    seg('segnext/segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512', factor=1),
    seg('sem_fpn/fpn_r50_4xb2-80k_cityscapes-512x1024'),
    seg(
        'setr/setr_vit-l_naive_8xb1-80k_cityscapes-768x768',
        options={'backbone.num_layers': 4, 'backbone.out_indices': (0, 1, 2, 3)},
    ),
    seg(
        'stdc/stdc1_4xb12-80k_cityscapes-512x1024',
        factor=1,
        placement=('backbone.arms.*', 'backbone.ffm.*'),
    ),
    seg('twins/twins_pcpvt-s_fpn_fpnhead_8xb4-80k_ade20k-512x512', factor=1),
    seg('unet/unet-s5-d16_fcn_4xb4-40k_drive-64x64'),
    seg('upernet/upernet_r50_4xb2-40k_cityscapes-512x1024'),
]

VGG = {
    'backbone.num_classes': -1,  # its own classifier takes images of 224 pixels
    'neck': dict(_delete_=True, type='GlobalAveragePooling'),
    'head': dict(_delete_=True, type='LinearClsHead', in_channels=512, num_classes=1000),
}

CLASSIFICATION = [
    cls('convnext/convnext-tiny_32xb128_in1k', factor=1, untouched=True),
    cls('cspnet/cspdarknet50_8xb32_in1k', factor=1),
    cls('densenet/densenet121_4xb256_in1k', factor=1),
    cls('efficientnet/efficientnet-b0_8xb32_in1k', factor=1),
    cls('efficientnet_v2/efficientnetv2-b0_8xb32_in1k', factor=1),
    cls('hrnet/hrnet-w18_4xb32_in1k', factor=1, placement=('backbone.layer1.*', 'neck.*')),
    cls('mobilenet_v2/mobilenet-v2_8xb32_in1k', factor=1),
    cls('mobilenet_v3/mobilenet-v3-small_8xb128_in1k', factor=1),
    cls('mobilevit/mobilevit-xxsmall_8xb128_in1k', factor=1, placement=('backbone.layers.*.bn',)),
    cls('regnet/regnetx-400mf_8xb128_in1k', factor=1),
    cls('repvgg/repvgg-A0_8xb32_in1k', factor=1),
    cls('res2net/res2net50-w26-s8_8xb32_in1k', factor=1),
    cls('resnest/resnest50_32xb64_in1k', factor=1),
    cls('resnet/resnet50_8xb32_in1k'),
    cls('resnext/resnext50-32x4d_8xb32_in1k', factor=1),
    cls('seresnet/seresnet50_8xb32_in1k'),
    cls('shufflenet_v1/shufflenet-v1-1x_16xb64_in1k', factor=1),
    cls('shufflenet_v2/shufflenet-v2-1x_16xb64_in1k', factor=1),
    cls('vgg/vgg11bn_8xb32_in1k', factor=1, options=VGG),
]

# That divide the channels of mobile networks.
OF_FOUR = {'num_pergroup': 4}
OF_CHANNELS = {'num_channels': 16}

OTHER_TYPES = [
    det('cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco', norm='SSN'),
    det('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco', norm='SSN'),
    seg('pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024', norm='SSN'),
    cls('mobilenet_v2/mobilenet-v2_8xb32_in1k', norm='SSN', factor=1),
    det('mask_rcnn/mask-rcnn_r50_fpn_1x_coco', norm='IBN'),
    det('yolox/yolox_tiny_8xb8-300e_coco', norm='IBN', factor=1),
    seg('deeplabv3plus/deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024', norm='IBN'),
    cls('regnet/regnetx-400mf_8xb128_in1k', norm='IBN', factor=1),
    det('retinanet/retinanet_r50_fpn_1x_coco', norm='KN'),
    det('gn/mask-rcnn_r50_fpn_gn-all_2x_coco', norm='KN'),
    det('hrnet/faster-rcnn_hrnetv2p-w32-1x_coco', norm='KN'),
    det('rtmdet/rtmdet_tiny_8xb32-300e_coco', norm='KN', factor=1),
    det('yolo/yolov3_d53_8xb8-320-273e_coco', norm='KN', factor=1),
    det('detr/detr_r50_8xb2-150e_coco', norm='KN'),
    seg('fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024', norm='KN'),
    seg('upernet/upernet_r50_4xb2-40k_cityscapes-512x1024', norm='KN'),
    seg('unet/unet-s5-d16_fcn_4xb4-40k_drive-64x64', norm='KN'),
    seg(
        'bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024',
        norm='KN',
        factor=1,
        placement=('backbone.*',),
    ),
    cls('resnet/resnet50_8xb32_in1k', norm='KN'),
    cls('densenet/densenet121_4xb256_in1k', norm='KN', factor=1),
    cls('mobilenet_v3/mobilenet-v3-small_8xb128_in1k', norm='KN', factor=1),
    det('dino/dino-4scale_r50_8xb2-12e_coco', norm='SyncSN', factor=1),
    seg('ocrnet/ocrnet_hr48_4xb2-40k_cityscapes-512x1024', norm='SyncSN'),
    cls('res2net/res2net50-w26-s8_8xb32_in1k', norm='SyncSN', factor=1),
    det('mask_rcnn/mask-rcnn_r50_fpn_1x_coco', norm='SW'),
    det('rtmdet/rtmdet_tiny_8xb32-300e_coco', norm='SW', norm_options=OF_FOUR, factor=1),
    det('detr/detr_r50_8xb2-150e_coco', norm='SyncSW', norm_options={'sw_type': 5}),
    seg('pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024', norm='SW'),
    seg('unet/unet-s5-d16_fcn_4xb4-40k_drive-64x64', norm='SW'),
    cls('mobilenet_v2/mobilenet-v2_8xb32_in1k', norm='SW', norm_options=OF_FOUR, factor=1),
    det('gn/mask-rcnn_r50_fpn_gn-all_2x_coco', norm='GW'),
    det('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco', norm='GW', norm_options={'num_channels': 2}),
    det('yolox/yolox_tiny_8xb8-300e_coco', norm='GW', norm_options={'num_groups': 8}, factor=1),
    seg('upernet/upernet_r50_4xb2-40k_cityscapes-512x1024', norm='GW'),
    seg('sem_fpn/fpn_r50_4xb2-80k_cityscapes-512x1024', norm='GW'),
    cls('resnet/resnet50_8xb32_in1k', norm='GW'),
    det('retinanet/retinanet_r50_fpn_1x_coco', norm='IterNorm'),
    seg('fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024', norm='SyncIterNorm'),
    cls('regnet/regnetx-400mf_8xb128_in1k', norm='IterNorm', norm_options=OF_CHANNELS, factor=1),
    det('faster_rcnn/faster-rcnn_r50_fpn_1x_coco', norm='PN'),
    seg('pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024', norm='PN'),
]

CASES = DETECTION + SEGMENTATION + CLASSIFICATION + OTHER_TYPES
