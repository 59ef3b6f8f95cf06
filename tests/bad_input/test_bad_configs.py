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


def sn(option):
    return lines(norm('SN').strip() + f"\nmodel['backbone']['norm_cfg'].update({option})")


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
TRAIN = [
    # the file
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
        ("default_scope = 'mmdett' names no installed package", 'mmdet')),
    Row('no data', lines('train_dataloader = None'), ('the config has no train_dataloader',)),
    # norms
    Row('norm unknown', lines(norm('SwitchNorm')),
        (f"{KEY}.type: there is no type 'SwitchNorm'; did you mean SN?",)),
    Row('norm as released', lines(norm('SwitchableNorm2d')), ('did you mean SN?',)),
    Row('IBN by its long name', lines(norm('InstanceBatchNorm2d')), ('did you mean IBN?',)),
    Row('norm in small letters', lines(norm('ibn')), ('did you mean IBN?',)),
    Row('norm option unknown', sn('ratios=2'),
        (f'{KEY}: ', "unexpected keyword argument 'ratios'")),
    Row('momentum', sn('momentum=2'), (f'{KEY}: ', 'momentum must lie in [0, 1]')),
    Row('eps', sn('eps=-1'), (f'{KEY}: ', 'eps must be a positive number, got -1')),
    Row('eps as text', sn("eps='1e-5'"), (f'{KEY}: ', "a positive number, got '1e-5'")),
    Row('logit_init', sn("logit_init='xx'"), (f'{KEY}: ', "logit_init must be", "'xx'")),
    Row('ratio', lines(norm('IBN') + "model['backbone']['norm_cfg']['ratio'] = 1.5"),
        (f'{KEY}: ', 'ratio must lie in [0, 1]')),
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


TEST = [
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
    Row('script missing', lambda p: ['run', 'gone.py'], ('there is no script gone.py',)),
]  # fmt: skip


@pytest.mark.parametrize('row', MODULE, ids=lambda row: row.name)
def test_python_m_normplug(tiny, refused, row):
    refused(normplug.__main__.main, row.make(tiny), row.messages)
