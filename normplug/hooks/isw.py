"""Train with instance selective whitening (ISW)."""

import copy
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from mmengine.dist import all_reduce, broadcast, get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner, set_random_seed
from torch import Tensor, nn

from normplug.errors import TrainingError, UnsuitableModelError
from normplug.isw import correlation, isw_loss, sensitive_pairs
from normplug.models.isw_layer import ISW
from normplug.models.wrappers import unwrapped
from normplug.population import batches_of_all_ranks, population_loader
from normplug.random_state import get_random_state, seed_of, set_random_state
from normplug.running import in_recomputation

__all__ = ['ISWHook']


_FOUND = 'isw_masks_found'  # in the message hub, which checkpoints keep


@HOOKS.register_module()
class ISWHook(Hook):
    """Add the loss of instance selective whitening to the model's, as ``loss_isw``.

    It is for models with ``ISW`` layers: ``backbone=dict(type='IBNResNet', ibn_cfg=('isw', 'isw',
    None, None))``. For ``begin`` iterations the loss is 0. Then the hook finds which correlations
    between channels depend on the style of an image, once: it runs the model on validation images
    and on photometric copies, and clusters how much each correlation varies. From there on the loss
    is ``weight`` times their mean absolute value, over the layers (RobustNet, CVPR 2021).

    Masks are buffers, so that a resumed training goes on with them; they are found with random
    numbers of their own, and are the same on all ranks. Released: each rank finds its own.

    Args:
        begin: iterations before the masks. Published: 6 epochs.
        weight: of the loss.
        clusters: k of k-means; all but the lowest are sensitive.
        trials: times the masks are found, with other copies; a pair must be in all of them.
        num_batches: of a trial, on each rank; one pass over the data, if that is less.
        photometric: transforms that make the copy, in front of the last of the pipeline. Our
            reading: mmseg's; the released code jitters colours by torchvision, and blurs.
        dataloader: config of the images; by default ``val_dataloader``, the validation set of the
            training's own domain.

    Raises:
        ValueError: an argument is out of range, or there is no pipeline to put the copies' into.
        UnsuitableModelError: the model has no ISW layer, or resumes after ``begin`` from a
            checkpoint without masks.
    """

    priority = 'LOW'  # before a checkpoint is written

    def __init__(
        self,
        begin: int,
        weight: float = 0.6,
        clusters: int = 3,
        trials: int = 10,
        num_batches: int = 500,
        photometric: Sequence[dict] = (dict(type='PhotoMetricDistortion'),),
        dataloader: dict | None = None,
    ) -> None:
        for name, value, least in (
            ('begin', begin, 1),
            ('clusters', clusters, 2),
            ('trials', trials, 1),
            ('num_batches', num_batches, 1),
        ):
            if type(value) is not int or value < least:
                raise ValueError(f'ISWHook: {name} must be an integer from {least}, got {value!r}')
        if not (isinstance(weight, Real) and weight >= 0):
            raise ValueError(f'ISWHook: weight must be a number from 0, got {weight!r}')
        self.begin, self.weight = begin, weight
        self.clusters, self.trials, self.num_batches = clusters, trials, num_batches
        self.photometric, self.dataloader = list(photometric), dataloader
        self._layers: dict[str, ISW] = {}
        self._losses: list[Tensor] = []  # of the forward pass that runs
        self._blind: set[ISW] = set()  # layers whose loss of this pass has no gradient
        self._is_on = False
        self._handles: list[Any] = []

    def before_train(self, runner: Runner) -> None:
        """Watch the layers, and the losses that the model returns."""
        model = unwrapped(runner.model)
        self._layers = {n: layer for n, layer in model.named_modules() if isinstance(layer, ISW)}
        if not self._layers:
            raise UnsuitableModelError(
                'ISWHook: the model has no ISW layer; remove the hook, or use '
                "backbone=dict(type='IBNResNet', ibn_cfg=('isw', 'isw', None, None))"
            )
        self._is_on = runner.iter >= self.begin
        # Masks may be found and be empty, where the trials agree on no pair.
        has_masks = _FOUND in runner.message_hub.runtime_info or any(
            bool(layer.mask.any()) for layer in self._layers.values()
        )
        if self._is_on and not has_masks:
            raise UnsuitableModelError(
                f'ISWHook: the checkpoint of iteration {runner.iter} has no masks, which '
                f'begin={self.begin} would have found before: set begin above {runner.iter}'
            )
        if not self._is_on:
            for layer in self._layers.values():
                layer.mask.zero_()  # those of a checkpoint that is fine-tuned are of its training
            for config in self._loaders(runner):  # what cannot be built fails now
                population_loader(runner.cfg, config, runner.seed)
        if self.begin >= runner.max_iters:
            runner.logger.warning(
                f'ISWHook: begin={self.begin} is not before the end, iteration {runner.max_iters}: '
                'loss_isw stays 0'
            )
        self._handles = [
            layer.register_forward_hook(self._record) for layer in self._layers.values()
        ]
        self._handles.append(model.register_forward_pre_hook(self._begin))
        self._handles.append(model.register_forward_hook(self._add))

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Find the masks after ``begin`` iterations."""
        if runner.iter + 1 == self.begin:
            self._find_masks(runner)
            self._is_on = True

    def after_train(self, runner: Runner) -> None:
        """Leave the model as it was."""
        for handle in self._handles:
            handle.remove()

    def _record(self, layer: ISW, args: tuple, y: Tensor) -> None:
        if self._is_on and layer.training:
            # Recomputed too, because checkpointing compares what is saved, but not counted.
            loss = isw_loss(correlation(y), layer.mask)
            if not in_recomputation():
                self._losses.append(loss)
                if not torch.is_grad_enabled():
                    self._blind.add(layer)
            elif layer in self._blind:
                raise RuntimeError(
                    'ISWHook: the loss of a layer under reentrant activation checkpointing has no '
                    'gradient: set with_cp=False, or checkpoint with use_reentrant=False'
                )

    def _begin(self, *args) -> None:
        # What is left is of a forward pass that raised, or of a part called by itself.
        self._losses = []
        self._blind.clear()

    def _add(self, model: nn.Module, args: tuple, output: Any) -> dict | None:
        losses, self._losses = self._losses, []
        if not (isinstance(output, dict) and model.training):
            return None
        if not losses:
            losses = [next(model.parameters()).new_zeros(())]
        return {**output, 'loss_isw': self.weight * torch.stack(losses).mean()}

    def _find_masks(self, runner: Runner) -> None:
        state = get_random_state()
        runner.model.eval()
        try:
            for trial in range(self.trials):
                variances = self._variances(runner, trial)
                for (name, layer), variance in zip(self._layers.items(), variances, strict=True):
                    if not variance.isfinite().all():
                        raise TrainingError(
                            f'ISWHook: the correlations of {name} have NaN or infinite values, and '
                            'no masks can be found: the training diverged'
                        )
                    found = sensitive_pairs(variance, self.clusters)
                    layer.mask.copy_(found if trial == 0 else found & layer.mask)
        finally:
            runner.model.train()
            set_random_state(state)
        for name, layer in self._layers.items():
            pairs = layer.num_features * (layer.num_features - 1) // 2
            runner.logger.info(f'ISW: {int(layer.mask.sum())} of {pairs} pairs of {name}')
        runner.message_hub.update_info(_FOUND, True)

    @torch.no_grad()
    def _variances(self, runner: Runner, trial: int) -> list[Tensor]:
        """Of each layer's Ψ within images and copies, (C, C), averaged over the batches."""
        seed = runner.seed + trial
        plain, altered = (population_loader(runner.cfg, c, seed) for c in self._loaders(runner))
        number = batches_of_all_ranks(plain, self.num_batches)
        sums = [
            layer.mask.new_zeros(layer.mask.shape, dtype=torch.float)
            for layer in self._layers.values()
        ]
        set_random_seed(seed_of(seed, get_rank()))  # of copies made in this process
        model = unwrapped(runner.model)
        for _, pair in zip(range(number), zip(plain, altered, strict=True), strict=False):
            of_layers = zip(*(self._correlations(model, data) for data in pair), strict=True)
            for total, psi in zip(sums, of_layers, strict=True):
                total += torch.cat(psi).var(0)
        for total in sums:
            all_reduce(total, 'mean')
            broadcast(total)  # the same bits on all ranks
        return [total / number for total in sums]

    def _correlations(self, model: nn.Module, data: Any) -> list[Tensor]:
        """Ψ (N, C, C) of each layer, in the order of the layers."""
        found: dict[nn.Module, Tensor] = {}

        def keep(layer: nn.Module, args: tuple, y: Tensor) -> None:
            found[layer] = correlation(y)

        handles = [layer.register_forward_hook(keep) for layer in self._layers.values()]
        try:
            model(**model.data_preprocessor(data, False), mode='tensor')
        finally:
            for handle in handles:
                handle.remove()
        return [found[layer] for layer in self._layers.values()]

    def _loaders(self, runner: Runner) -> tuple[dict, dict]:
        """The configs of the images' loader, and of the copies'."""
        plain = copy.deepcopy(self.dataloader or runner.cfg.get('val_dataloader'))
        pipeline = plain['dataset'].get('pipeline') if isinstance(plain, dict) else None
        if not pipeline:
            raise ValueError(
                'ISWHook: val_dataloader has no dataset with a pipeline, to make photometric '
                'copies in; set the option dataloader of the hook'
            )
        plain['persistent_workers'] = False
        altered = copy.deepcopy(plain)
        altered['dataset']['pipeline'] = [*pipeline[:-1], *self.photometric, pipeline[-1]]
        return plain, altered
