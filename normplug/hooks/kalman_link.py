"""Link KN and CBN layers by means of the first batch."""

from copy import deepcopy
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from normplug.errors import UnsuitableModelError
from normplug.kalman import LinkReport, SharedLayerError, link_kalman, refuse_checkpointing
from normplug.models.wrappers import unwrapped
from normplug.norms import CBN, KN

__all__ = ['KalmanLinkHook']


@HOOKS.register_module()
class KalmanLinkHook(Hook):
    """Link the model's KN and CBN layers, before the first iteration of each run of the program.

    The hook passes the first batch through the model's loss once more, without gradients, and
    follows its dataflow: see :func:`normplug.link_kalman`. Weights, buffers, random numbers and
    the batch do not change. The log shows the predecessor of each layer, or why it has none.

    ``tools/train.py`` adds the hook to a model with KN or CBN; elsewhere, add
    ``custom_hooks=[dict(type='KalmanLinkHook')]``.

    Raises:
        UnsuitableModelError: the model has neither; its KN layers are under activation
            checkpointing; a CBN layer runs several times in a forward.
    """

    priority = 'HIGH'

    def before_train(self, runner: Runner) -> None:
        """Refuse a model that cannot be linked before the first batch is loaded."""
        self._linked = False
        model = unwrapped(runner.model)
        if not isinstance(model, BaseModel):
            raise UnsuitableModelError(
                f'KalmanLinkHook: {type(model).__name__} is no BaseModel of mmengine, whose loss '
                'the hook could follow; call normplug.link_kalman(model, ...) before training '
                'instead'
            )
        if not any(isinstance(module, (KN, CBN)) for module in model.modules()):
            raise UnsuitableModelError(
                'KalmanLinkHook: the model has no KN or CBN; remove the hook, or use '
                "norm_cfg=dict(type='KN') or 'CBN'"
            )
        try:
            refuse_checkpointing(model)
        except ValueError as error:
            raise UnsuitableModelError(str(error)) from error

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Link, once."""
        if self._linked:
            return
        model = unwrapped(runner.model)

        def forward() -> None:
            model._run_forward(model.data_preprocessor(deepcopy(data_batch), True), mode='loss')

        try:
            reports = link_kalman(model, forward)
        except SharedLayerError as error:
            raise UnsuitableModelError(f'KalmanLinkHook: {error}') from error
        layers = dict(model.named_modules())
        for kind, linked in ((KN, 'predicted by others'), (CBN, 'linked to a convolution')):
            own = [report for report in reports if isinstance(layers[report.name], kind)]
            if own:
                self._log(runner, kind.__name__, linked, own)
        self._linked = True

    def _log(self, runner: Runner, kind: str, linked: str, reports: list[LinkReport]) -> None:
        plain = sum(not report.predecessors for report in reports)
        # The hook has no effect if no layer has found another.
        log = runner.logger.info if plain < len(reports) else runner.logger.warning
        log(
            f'{kind}: {len(reports) - plain} layers are {linked}, {plain} are plain batch '
            'norm:\n' + '\n'.join(f'  {report}' for report in reports)
        )
