"""Wrong configs and command lines of the tools: exit code 2, a message, nothing written."""

import pytest
from bad_input_projects import Row
from test_bad_checkpoints import norm

import normplug.__main__


def lines(text):
    """A row whose config has these lines more."""
    return lambda p: [p.write_config(text + '\n')]


def arguments(*argv):
    return lambda p: [p.write_config(), *argv]


def options(*argv):
    return arguments('--cfg-options', *argv)


def norm_option(kind, option):
    return lines(norm(kind).strip() + f"\nmodel['backbone']['norm_cfg'].update({option})")


def sn(option):
    return norm_option('SN', option)


def another_file(name, content):
    def make(p):
        (p.folder / name).write_text(content)
        return [name]

    return make


def work_dir_taken(p):
    (p.folder / 'taken').write_text('mine')
    return [p.write_config(), '--work-dir', 'taken']


def folder_config(p):
    (p.folder / 'configs').mkdir()
    return ['configs']


KEY = 'model.backbone.norm_cfg'
PARAMWISE = (
    "optim_wrapper.update(constructor='NormOptimWrapperConstructor', paramwise_cfg=dict({}))"
)
EPOCHS = "train_cfg = dict(type='EpochBasedTrainLoop', max_epochs={})"
TRAIN = [
    # the file
    Row('config of ours that does not exist', lambda p: ['normplug::faster_rcn/nope.py'],
        ('normplug has no config normplug::faster_rcn/nope.py. Its configs lie in ',)),
    Row('unknown config', lambda p: ['gone.py'], ('config file gone.py does not exist',)),
    Row('a folder as config', folder_config, ('config file configs is a folder', 'name a file')),
    Row('another suffix', another_file('config.txt', 'a = 1'),
        ('cannot read config config.txt', 'py/yml/yaml/json')),
    Row('syntax error', lines('model = dict('), ('cannot read config', 'was never closed')),
    Row('unknown name', lines('a = norm_cf'), ("NameError: name 'norm_cf'", 'correct the file')),
    Row('calculation that fails', lines('a = 1 / 0'), ('ZeroDivisionError', 'correct the file')),
    Row('YAML that is none', another_file('config.yaml', 'a: [1'), ('cannot read config',)),
    Row('JSON that is none', another_file('config.json', '{"a": '), ('cannot read config',)),
    Row('base that does not exist', lines("_base_ = 'gone.py'"), ('cannot read config', 'gone.py')),
    Row('module that does not exist', lines("custom_imports = dict(imports=['no_such'])"),
        ('cannot read config', 'no_such')),
    Row('scope that is not installed', lines("default_scope = 'mmdett'"),
        ("default_scope = 'mmdett' is not an installed package", 'mmdet')),
    Row('no data', lines('train_dataloader = None'), ('the config has no train_dataloader',)),
    # norms
    Row('norm unknown', lines(norm('SwitchNorm')),
        (f"{KEY}.type: there is no type 'SwitchNorm'; did you mean SN?",)),
    Row('norm as released', lines(norm('SwitchableNorm2d')), ('did you mean SN?',)),
    Row('IBN by its long name', lines(norm('InstanceBatchNorm2d')), ('did you mean IBN?',)),
    Row('norm in small letters', lines(norm('ibn')), ('did you mean IBN?',)),
    Row('norm option unknown', sn('ratios=2'),
        (f'{KEY}: ', "unexpected keyword argument 'ratios'")),
    *(Row(f'option unknown to {kind}', norm_option(kind, 'ratios=7'),
          (f'error: {KEY}: ', "unexpected keyword argument 'ratios'"))
      for kind in ('SyncSN', 'SSN', 'SyncSSN', 'IBN', 'SyncIBN')),
    Row('momentum', sn('momentum=2'), (f'{KEY}: ', 'momentum must lie in [0, 1]')),
    Row('eps', sn('eps=-1'), (f'{KEY}: ', 'eps must be a positive number, got -1')),
    Row('eps as text', sn("eps='1e-5'"), (f'{KEY}: ', "a positive number, got '1e-5'")),
    Row('logit_init', sn("logit_init='xx'"), (f'{KEY}: ', "logit_init must be", "'xx'")),
    Row('ratio', lines(norm('IBN') + "model['backbone']['norm_cfg']['ratio'] = 1.5"),
        (f'{KEY}: ', 'ratio must lie in [0, 1]')),
    Row('SW as released', lines(norm('SwitchWhiten2d')), ('did you mean SW?',)),
    Row('SyncSW as released', lines(norm('SyncSwitchWhiten2d')), ('did you mean SyncSW?',)),
    Row('BRN by its long name', lines(norm('BatchRenorm2d')), ('did you mean BRN?',)),
    Row('CBN by its long name', lines(norm('CBatchNorm2d')), ('did you mean CBN?',)),
    Row('BIN by its long name', lines(norm('BatchInstanceNorm2d')), ('did you mean BIN?',)),
    Row('r_max', norm_option('BRN', 'r_max=0.5'), (f'{KEY}: ', 'a number of at least 1, got 0.5')),
    Row('IterNorm by its long name', lines(norm('IterativeNorm')), ('did you mean IterNorm?',)),
    Row('GW by its long name', lines(norm('GroupWhitening')), ('did you mean GW?',)),
    *(Row(f'{option} of {kind}', norm_option(kind, option),
          (f'error: {KEY}: ', f"type='{kind}'", f'{option} does not divide the '))
      for kind, option in (('SW', 'num_pergroup=3'), ('SyncSW', 'num_pergroup=3'),
                           ('SyncIterNorm', 'num_channels=3'), ('IterNorm', 'num_groups=3'),
                           ('GW', 'num_groups=3'), ('GW', 'num_channels=3'))),
    Row('sw_type', norm_option('SW', 'sw_type=4'), (f'{KEY}: ', 'sw_type must be one of 2, 3, 5')),
    Row('Newton iterations', norm_option('IterNorm', 'T=0'), (f'{KEY}: ', 'the number of Newton')),
    Row('no channels', lines(norm('SN') + "model['backbone']['width'] = 0"),
        (f'{KEY}: ', 'num_features must be a positive integer, got 0')),
    # training
    Row('batch size 0', lines("train_dataloader['batch_size'] = 0"),
        ('train_dataloader.batch_size must be a whole number from 1, got 0',)),
    Row('batch size as text', options('val_dataloader.batch_size=two'),
        ("val_dataloader.batch_size must be a whole number from 1, got 'two'",)),
    Row('negative workers', options('train_dataloader.num_workers=-1'),
        ('train_dataloader.num_workers must be a whole number from 0, got -1',)),
    Row('persistent workers without workers', options('train_dataloader.persistent_workers=True'),
        ('train_dataloader.persistent_workers=True needs train_dataloader.num_workers',)),
    Row('optimizer unknown', options('optim_wrapper.optimizer.type=SDG'),
        ("optim_wrapper.optimizer.type: there is no type 'SDG'", 'SGD')),
    Row('optimizer option unknown', options('optim_wrapper.optimizer.learning_rate=1'),
        ('optim_wrapper.optimizer: ', "unexpected keyword argument 'learning_rate'")),
    Row('learning rate', options('optim_wrapper.optimizer.lr=-1'),
        ('optim_wrapper.optimizer: ', 'Invalid learning rate: -1')),
    Row('paramwise_cfg key', lines(PARAMWISE.format('norm_decay_mul=0')),
        ("optim_wrapper.paramwise_cfg has no option 'norm_decay_mul'; did you mean norm_decay",)),
    Row('paramwise_cfg without weight decay', lines(PARAMWISE.format('ratio_decay_mult=0')),
        ('paramwise_cfg.ratio_decay_mult multiplies optim_wrapper.optimizer.weight_decay',)),
    Row('our paramwise_cfg without our constructor',
        options('optim_wrapper.paramwise_cfg.ratio_lr_mult=0.1'),
        ('optim_wrapper.paramwise_cfg.ratio_lr_mult', "= 'NormOptimWrapperConstructor'")),
    Row('schedule unknown', lines("param_scheduler = [dict(type='StepLr')]"),
        ("param_scheduler.0.type: there is no type 'StepLr'", 'StepLR')),
    Row('schedule that ends before it begins',
        lines("param_scheduler = [dict(type='LinearLR', start_factor=0.1, begin=9, end=3)]"),
        ('param_scheduler.0: ', 'end should be larger than begin')),
    Row('schedule option', lines("param_scheduler = dict(type='MultiStepLR', milestone=[3])"),
        ('param_scheduler: ', "'milestone'")),
    Row('hook unknown', lines("custom_hooks = [dict(type='EMAHok')]"),
        ("custom_hooks.0.type: there is no type 'EMAHok'", 'EMAHook')),
    Row('hook option', lines("default_hooks['logger'].update(intervall=3)"),
        ('default_hooks.logger.intervall: LoggerHook has no such argument', 'takes interval,')),
    Row('checkpoint option, which would come to light at the first checkpoint',
        lines("default_hooks['checkpoint'].update(intervall=3)"),
        ('default_hooks.checkpoint.intervall: CheckpointHook has no such argument', 'interval')),
    # values
    Row('validation interval 0', options('train_cfg.val_interval=0'),
        ('train_cfg.val_interval must be a whole number from 1, got 0',)),
    Row('validation interval as text', options('train_cfg.val_interval=abc'),
        ("train_cfg.val_interval must be a whole number from 1, got 'abc'",)),
    Row('no iterations', options('train_cfg.max_iters=0'),
        ('train_cfg.max_iters must be a whole number from 1, got 0',)),
    Row('no epochs', lines(EPOCHS.format(0)),
        ('train_cfg.max_epochs must be a whole number from 1, got 0',)),
    Row('epochs as text', lines(EPOCHS.format("'two'")),
        ("train_cfg.max_epochs must be a whole number from 1, got 'two'",)),
    Row('loop option', options('train_cfg.max_iter=3'),
        ('train_cfg.max_iter: IterBasedTrainLoop has no such argument', 'takes max_iters,')),
    Row('loop of no kind', lines('train_cfg = dict(max_epochs=3)'),
        ('train_cfg has neither type nor by_epoch; set train_cfg.type',)),
    Row('epochs that never end',
        lines(EPOCHS.format(3) + "\ntrain_dataloader['sampler'] = dict(type='InfiniteSampler')"),
        ('train_dataloader.sampler never ends', 'DefaultSampler')),
    Row('checkpoints to keep', options('default_hooks.checkpoint.max_keep_ckpts=x'),
        ("default_hooks.checkpoint.max_keep_ckpts must be a whole number from 1, or -1",
         "got 'x'")),
    Row('best of an unknown metric', options('default_hooks.checkpoint.save_best=nonsense'),
        ('default_hooks.checkpoint: Cannot infer the rule for key nonsense', 'rule must be')),
    Row('rule of the best', options('default_hooks.checkpoint.rule=bigger'),
        ("default_hooks.checkpoint.rule must be 'greater' or 'less', got 'bigger'",)),
    Row('checkpoint interval', options('default_hooks.checkpoint.interval=0'),
        ('default_hooks.checkpoint.interval must be a whole number from 1, got 0',)),
    Row('log interval', options('default_hooks.logger.interval=0'),
        ('default_hooks.logger.interval must be a whole number from 1, got 0',)),
    Row("our hook's interval", lines("custom_hooks = [dict(type='NonFiniteLossHook', interval=0)]"),
        ('custom_hooks.0.interval must be a whole number from 1, got 0',)),
    Row('hook priority',
        lines("custom_hooks = [dict(type='EmptyCacheHook', priority='HIGHER')]"),
        ('custom_hooks.0.priority must be', 'VERY_HIGH', "got 'HIGHER'")),
    Row("the noise hook's batches",
        lines("custom_hooks = [dict(type='BatchNoiseHook', batches=1)]"),
        ('custom_hooks.0: BatchNoiseHook: batches must be an integer from 2, got 1',)),
    Row("the noise hook's interval",
        lines("custom_hooks = [dict(type='BatchNoiseHook', interval=0)]"),
        ('custom_hooks.0.interval',)),
    Row('value of a hook', lines("custom_hooks = [dict(type='EMAHook', begin_iter=-1)]"),
        ('custom_hooks.0: ', 'begin_iter')),
    Row('samples of gamma decay', lines("custom_hooks = [dict(type='GammaDecayHook', samples=0)]"),
        ('custom_hooks.0: ', 'samples must be a number from 1', 'got 0')),
    Row('noise of PN', norm_option('PN', "noise='std'"),
        (KEY, "type='PN'", "noise must be one of none, mean, var, both, got 'std'")),
    Row('gamma decay without its samples', lines("custom_hooks = [dict(type='GammaDecayHook')]"),
        ('custom_hooks.0', 'samples')),
    Row('curvature of gamma decay',
        lines("custom_hooks = [dict(type='GammaDecayHook', samples=8, curvature='exact')]"),
        ('custom_hooks.0: ', "curvature must be one of fisher, sigmoid, got 'exact'")),
    Row('sampler option', options('train_dataloader.sampler.shufle=True'),
        ('train_dataloader.sampler.shufle: DefaultSampler has no such argument', 'takes shuffle')),
    Row('batch sampler without a sampler',
        lines("train_dataloader.update(sampler=None, batch_sampler=dict(type='InfiniteSampler'))"),
        ('train_dataloader.batch_sampler needs train_dataloader.sampler', 'DefaultSampler')),
    Row('number of workers', options('train_dataloader.num_workers=None'),
        ('train_dataloader.num_workers must be a whole number from 0, got None',)),
    Row('validation without end', options('val_dataloader.sampler.type=InfiniteSampler'),
        ('val_dataloader.sampler never ends', 'DefaultSampler')),
    Row('loader option', options('train_dataloader.workers=2'),
        ('train_dataloader.workers: DataLoader has no such argument', 'num_workers')),
    Row('shuffle beside a sampler', options('train_dataloader.shuffle=True'),
        ('set train_dataloader.sampler.shuffle instead',)),
    Row('metric option', options('val_evaluator.metric=bboxx'),
        ('val_evaluator.metric: TinyAccuracy has no such argument', 'collect_device')),
    Row('gradient clipping option', options('optim_wrapper.clip_grad.max_nrm=1'),
        ('optim_wrapper.clip_grad.max_nrm: clip_grad_norm_ has no such argument', 'max_norm')),
    Row('gradient clipping as text', options('optim_wrapper.clip_grad.max_norm=abc'),
        ("optim_wrapper.clip_grad.max_norm must be a number, got 'abc'",)),
    Row('seed as text in the config', options('randomness.seed=abc'),
        ("randomness.seed must be a whole number from 0, got 'abc'",)),
    Row('log level', options('log_level=LOUD'), ('log_level must be one of', "INFO", "got 'LOUD'")),
    Row('start method', options('env_cfg.mp_cfg.mp_start_method=foork'),
        ('env_cfg.mp_cfg.mp_start_method must be one of', "spawn", "got 'foork'")),
    Row('padding', options('model.data_preprocessor.pad_size_divisor=0'),
        ('model.data_preprocessor.pad_size_divisor must be a whole number from 1, got 0',)),
    Row('model option', options('model.backbone.depth=3'),
        ('model cannot be built: TypeError: ', "'depth'", 'check the key model.backbone')),
    Row('value of a model option', options('model.backbone.width=abc'),
        ('model cannot be built: TypeError: ', 'check the key model.backbone')),
    # arguments
    Row('option without value', options('train_cfg.max_iters'),
        ("--cfg-options: 'train_cfg.max_iters' is not KEY=VALUE",)),
    Row('option of a list entry that is not there',
        lambda p: [p.write_config('custom_hooks = []\n'), '--cfg-options', 'custom_hooks.3.type=A'],
        ('--cfg-options does not fit',)),
    Row('argument unknown', arguments('--epochs', '3'), ('unrecognized arguments: --epochs 3',)),
    Row('no config', lambda p: [], ('arguments are required: config',)),
    Row('work_dir is a file', work_dir_taken, ('--work-dir: taken is a file; name a folder',)),
    Row('data_root missing', options('train_dataloader.dataset.data_root=nowhere'),
        ('train_dataloader.dataset.data_root: nowhere', 'Put the data there')),
    Row('launcher without its variables', arguments('--launcher', 'pytorch'),
        ('--launcher pytorch needs the environment variables', 'drop --launcher')),
    Row('launcher unknown', arguments('--launcher', 'torchrun'), ("invalid choice: 'torchrun'",)),
    Row('no scale for auto-scale-lr', arguments('--auto-scale-lr'),
        ('no auto_scale_lr.base_batch_size', 'auto_scale_lr = dict(base_batch_size=')),
]  # fmt: skip


@pytest.mark.parametrize('row', TRAIN, ids=lambda row: row.name)
def test_train(tiny, tool, refused, monkeypatch, row):
    monkeypatch.delenv('RANK', raising=False)
    refused(tool('train'), row.make(tiny), row.messages)


DATA = [
    Row('metric of boxes', lambda p: ['val_evaluator.metric=bboxx'],
        ('val_evaluator: ', "one of 'bbox', 'segm'", 'bboxx')),
    Row('scale as text', lambda p: ['train_dataloader.dataset.pipeline.2.scale=abc'],
        ('train_dataloader.dataset.pipeline.2.scale must be a number or (width, height)',)),
    Row('transform option', lambda p: ['train_dataloader.dataset.pipeline.2.scal=3'],
        ('train_dataloader.dataset.pipeline.2: ', "unexpected keyword argument 'scal'")),
    Row('drop_last beside a batch sampler',
        lambda p: ['train_dataloader.batch_sampler.type=AspectRatioBatchSampler',
                   'train_dataloader.drop_last=True'],
        ('train_dataloader.drop_last cannot stand beside train_dataloader.batch_sampler',)),
    Row('depth of the backbone', lambda p: ['model.backbone.depth=19'],
        ('model cannot be built: KeyError: ', 'depth 19', 'check the key model.backbone')),
    Row('NMS that is not there', lambda p: ['model.test_cfg.nms.type=nms_rotated'],
        ('model.test_cfg.nms.type: nms_rotated needs nms_rotated of mmcv.ops',
         'MMCV_WITH_OPS=1')),
]  # fmt: skip


@pytest.mark.parametrize('row', DATA, ids=lambda row: row.name)
def test_train_detector(detection, tool, refused, row):
    refused(tool('train'), ['config.py', '--cfg-options', *row.make(detection)], row.messages)


def taken(*argv):
    def make(p):
        (p.folder / 'taken').write_text('mine')
        return ['a.pth', *argv]

    return make


def test_predictions_over_a_file(segmentation, tool, refused):
    (segmentation.folder / 'taken').write_text('mine')
    refused(
        tool('test'),
        ['config.py', 'a.pth', '--out', 'taken'],
        ('--out taken: nothing can be written there: ', 'is a file', 'name another place'),
    )


TEST = [
    Row('predictions where nothing can be written',
        lambda p: ['a.pth', '--out', '/proc/x/a.pkl'],
        ('--out /proc/x/a.pkl: nothing can be written there', 'name another place')),
    Row('predictions without a name', lambda p: ['a.pth', '--out', ''], ('--out is empty; name',)),
    Row('predictions below a file', taken('--out', 'taken/a.pkl'),
        ('--out taken/a.pkl: nothing can be written there', 'name another place')),
    Row('pictures over a file', taken('--show-dir', 'taken'),
        ('--show-dir taken: nothing can be written there', 'is a file')),
    Row('no checkpoint', lambda p: [], ('arguments are required: checkpoint',)),
    Row('test-time augmentation without a model for it', lambda p: ['a.pth', '--tta'],
        ('--tta: the config has no tta_model', 'tta_pipeline')),
    Row('pictures without the hook', lambda p: ['a.pth', '--show-dir', 'shown'],
        ('--show-dir: the config has no default_hooks.visualization', 'VisualizationHook')),
    Row('predictions in another form', lambda p: ['a.pth', '--out', 'out.json'],
        ('--out out.json', 'must end in .pkl')),
]  # fmt: skip


@pytest.mark.parametrize('row', TEST, ids=lambda row: row.name)
def test_test(tiny, tool, refused, row):
    config = tiny.write_config()
    argv = row.make(tiny)
    tiny.save_checkpoint('a.pth')
    refused(tool('test'), [config, *argv], row.messages)


def foreign_folder(p):
    (p.folder / 'mine/coco').mkdir(parents=True)
    (p.folder / 'mine/coco/notes.txt').write_text('mine')
    return ['--out', 'mine']


def file_in_the_way(p):
    (p.folder / 'mine').write_text('mine')
    return ['--out', 'mine/digits']


DIGITS = [
    Row('format unknown', lambda p: ['--formats', 'voc'],
        ('--formats voc: choose one or more of',)),
    Row('another folder', foreign_folder, ('mine/coco was not written by', 'choose another --out')),
    Row('a file in the way', file_in_the_way, ('--out mine/digits: cannot be written',)),
    Row('no images', lambda p: ['--train', '0'], ('--train 0: must be 1 or more',)),
    Row('size', lambda p: ['--size', '8'], ('--size 8: must be from 64 to 1024',)),
    Row('seed as text', lambda p: ['--seed', 'x'], ("--seed: invalid int value: 'x'",)),
]  # fmt: skip


@pytest.mark.parametrize('row', DIGITS, ids=lambda row: row.name)
def test_make_digits(tiny, tool, refused, monkeypatch, row):
    main = tool('make_digits')

    def run(argv):
        monkeypatch.setattr('sys.argv', ['make_digits.py', *argv])
        return main()

    refused(run, row.make(tiny), row.messages)


MODULE = [
    Row('unknown command', lambda p: ['trian'], ("invalid choice: 'trian'",)),
    Row('no script', lambda p: ['run'], ('arguments are required: SCRIPT',)),
    Row('no run to plot', lambda p: ['plot-batch-noise', 'gone'],
        ('gone has no */vis_data/scalars.json with records of BatchNoiseHook', 'custom_hooks')),
    Row('script missing', lambda p: ['run', 'gone.py'], ('there is no script gone.py',)),
]  # fmt: skip


@pytest.mark.parametrize('row', MODULE, ids=lambda row: row.name)
def test_python_m_normplug(tiny, refused, row):
    refused(normplug.__main__.main, row.make(tiny), row.messages)
