"""Convert a trained model to native layers, and write its config and checkpoint."""

from __future__ import annotations

import copy
import glob
import os
import os.path as osp
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from normplug.errors import UserError
from normplug.norms.whitening import WhiteningNorm
from normplug.preflight.config_types import name_of, name_operators, written
from normplug.whitened import plain_layers

from .dataflow import record
from .description import names_of
from .network import Batch, largest_difference, load_model, run
from .plan import DeployPlan, make_plan

__all__ = ['TOLERANCE', 'deploy']

# Of the largest output. Folding rounds every weight once, and a network of a hundred layers
# passes on some hundred roundings of 1e-7; a wrong fold is off by more than 1e-3.
TOLERANCE = 1e-4
_RUNNING = ('running_mean', 'running_var', 'num_batches_tracked')


def deploy(
    cfg: Config,
    model: nn.Module,
    dataset_meta: dict,
    out_dir: str,
    batches: list[Batch],
    must_fold: Iterable[str] = (),
) -> tuple[DeployPlan, float]:
    """Write ``config.py`` and ``model.pth`` of the deployed ``model`` into the new ``out_dir``.

    The network is read back from what was written and compared with the trained one on all
    ``batches``; only then the folder gets its name.

    Returns:
        The plan with what each norm became, and the largest relative difference of the outputs.

    Raises:
        UserError: the model is deployed already or fails on a batch, a norm that has to be folded
            cannot, or the outputs differ by more than TOLERANCE. Nothing has been written then.
    """
    if name_of(cfg.model.get('type')) in ('DeployedModel', 'deployed_model'):
        raise UserError('the config is that of a deployed model already')
    wanted = [_first_run(cfg, model, batch) for batch in batches]
    plain_layers(model)
    flow, _ = record(model, lambda: [_first_run(cfg, model, batch) for batch in batches])
    try:
        plan = make_plan(model, flow, must_fold)
    except ValueError as error:
        raise UserError(str(error)) from error
    new_cfg = _deployed_config(cfg, plan)
    state = _deployed_state(model, plan)
    with _whole_or_absent(out_dir) as folder:
        new_cfg.dump(osp.join(folder, 'config.py'))
        torch.save(
            {'state_dict': state, 'meta': dict(dataset_meta=dataset_meta)},
            osp.join(folder, 'model.pth'),
        )
        again = Config.fromfile(osp.join(folder, 'config.py'))
        twin, _ = load_model(again, osp.join(folder, 'model.pth'))
        got = [run(cfg, twin, b, w['proposals']) for b, w in zip(batches, wanted, strict=True)]
        difference = largest_difference([g['outputs'] for g in got], [w['outputs'] for w in wanted])
        if not difference <= TOLERANCE:
            raise UserError(
                f'the outputs of the deployed network differ by {difference:.1e} of the largest '
                f'(allowed: {TOLERANCE:.0e}); nothing was written'
            )
    return plan, difference


def _first_run(cfg: Config, model: nn.Module, batch: Batch) -> dict:
    try:
        return run(cfg, model, batch)
    except (AssertionError, RuntimeError, ValueError) as error:
        shape = tuple(batch.inputs.shape)
        raise UserError(
            f'the model fails on an input of {shape}: {error}\n'
            f'If it takes others only, name one of them: --shape N C {"T " * (len(shape) == 5)}H W'
        ) from error


def _deployed_config(cfg: Config, plan: DeployPlan) -> Config:
    new = Config(written(cfg._to_lazy_dict()))
    name_operators(new._cfg_dict)
    norms = [dict(where=glob.escape(n), norm_cfg=own) for n, own in plan.norm_cfgs.items()]
    folded = [dict(conv=conv, norm=norm) for norm, conv in plan.folded.items()]
    deployed = dict(type=new.model.type, norms=norms, folded=folded)
    new.model = ConfigDict(new.model, type='DeployedModel', deployed=deployed)
    imports = new.setdefault('custom_imports', dict(imports=[]))
    if 'normplug' not in imports['imports']:
        imports['imports'] = [*imports['imports'], 'normplug']
    return new


def _deployed_state(model: nn.Module, plan: DeployPlan) -> dict[str, Tensor]:
    """The state dict of the deployed model, from that of the trained one."""
    state = model.state_dict()
    names = names_of(model)
    for name, native in plan.norm_cfgs.items():
        kept = {'weight', 'bias'}
        kept |= set(_RUNNING) if native['type'].startswith('BN') else set()
        _keep(state, names[model.get_submodule(name)], kept)
    for norm_name, conv_name in plan.folded.items():
        norm, conv = model.get_submodule(norm_name), model.get_submodule(conv_name)
        fused = _fold(conv, norm)
        _keep(state, names[norm], set())
        for name in names[conv]:
            state[f'{name}.weight'], state[f'{name}.bias'] = fused.weight.data, fused.bias.data
    return state


def _keep(state: dict[str, Tensor], layer_names: list[str], kept: set[str]) -> None:
    for key in list(state):
        parent, _, own = key.rpartition('.')
        if parent in layer_names and own not in kept:
            del state[key]


def _fold(conv: nn.Module, norm: nn.Module) -> nn.Module:
    """Fold the norm into the convolution, in float64; the result has the old dtype."""
    if isinstance(norm, WhiteningNorm):
        return _fold_linear(conv, norm)
    native = nn.BatchNorm2d(norm.num_features, norm.eps)
    own = native.state_dict()
    native.load_state_dict({key: v for key, v in norm.state_dict().items() if key in own})
    wide = copy.deepcopy(conv).double().eval()
    return fuse_conv_bn_eval(wide, native.double().eval()).to(conv.weight.dtype)


@torch.no_grad()
def _fold_linear(conv: nn.Module, norm: WhiteningNorm) -> nn.Module:
    """The convolution whose output channels are mixed block by block: those of one group."""
    matrix, offset = norm.evaluation()
    fused = copy.deepcopy(conv).double()
    weight = matrix @ fused.weight.view(*offset.shape, -1)
    if fused.bias is not None:
        offset = offset + (matrix @ fused.bias.view(*offset.shape, 1)).squeeze(-1)
    fused.weight.data, fused.bias = weight.view_as(fused.weight), nn.Parameter(offset.flatten())
    return fused.to(conv.weight.dtype)


@contextmanager
def _whole_or_absent(out_dir: str) -> Iterator[str]:
    """Yield a folder beside ``out_dir``, which gets that name if the block raises no error."""
    out = Path(out_dir).absolute()
    folder = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(prefix=f'.{out.name}.', dir=out.parent)
        yield folder
        os.chmod(folder, 0o755)
        os.rename(folder, out)
    except OSError as error:
        raise UserError(f'OUT_DIR: {out_dir} cannot be written: {error}') from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
