"""Checkpoints from which a killed training continues as if it had not stopped."""

from __future__ import annotations

import hashlib
import os.path as osp
import pickle
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from mmengine.dist import all_gather_object, get_world_size, is_main_process, master_only
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner, save_checkpoint

from normplug import checkpoint_file
from normplug.digits_record import META_KEY, record_of
from normplug.files import check_room, check_writable, remove_leftovers
from normplug.hooks.of_runner import wrappers_in
from normplug.hooks.sample_seed import SampleSeedHook
from normplug.hooks.sync_norm_stats import synchronize_models
from normplug.models.wrappers import unwrapped
from normplug.random_state import get_random_state, set_random_state
from normplug.resume import storage
from normplug.resume.kept import (
    caching_transforms,
    preprocessor_values,
    set_preprocessor_values,
)
from normplug.resume.size import checkpoint_bytes

__all__ = ['ResumableCheckpointHook']


@HOOKS.register_module()
class ResumableCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, with the same options, for trainings that may be killed.

    * A checkpoint holds the random state of every rank (``random_states``), and a resumed training
      continues with it. Validation does not change the random state.
    * Its ``meta`` says on which of the embedded digits the network was trained, if on any.
    * It holds the values that the data preprocessor has changed (``preprocessor_values``), such as
      the size of mmdet's BatchSyncRandomResize.
    * Checkpoints and ``last_checkpoint`` are written to a temporary file that is then renamed, and
      older checkpoints are deleted after that. (Into a local folder; ``backend_args`` and
      ``out_dir`` for a remote storage are used as they are.)
    * The folder's permissions and free space are checked before training.
    * Running statistics are synchronized over the ranks before they are saved.

    mmengine can read the checkpoints: the states are additional keys.

    Raises:
        OSError: before training: the folder of the checkpoints is not writable, or has less free
            space than one checkpoint needs.
        CheckpointWriteError: while saving. The previous checkpoint is intact.
    """

    # No __init__, so that the signature stays mmengine's.
    _loaded: dict[str, Any] | None = None  # from the checkpoint, until training begins
    _pending: dict[str, Any] | None = None  # to restore before the next epoch
    _before_val: dict[str, Any] | None = None  # while validating: the state of training
    _gathered: list[dict[str, Any]] | None = None  # while saving: the states by rank
    _built: Mapping[str, Any] = MappingProxyType({})  # what the data preprocessor held at first

    # Resuming

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep what :meth:`before_train` restores if this is a resumed training."""
        seed = (checkpoint.get('meta') or {}).get('seed')
        self._loaded = {
            'states': checkpoint.get('random_states'),
            'other_seed': seed is not None and seed != runner.seed,
            'preprocessor': checkpoint.get('preprocessor_values') or {},
        }

    def before_train(self, runner: Runner) -> None:
        """Check the folder, remove what a killed training left, prepare to restore the states."""
        is_local = self._choose_storage()
        super().before_train(runner)
        if is_local and is_main_process():
            check_writable(self.out_dir)
            check_room(self.out_dir, _expected_size(runner))
            for folder in {self.out_dir, runner.work_dir}:
                for name in remove_leftovers(folder):
                    runner.logger.info(f'removed {osp.join(folder, name)} of a killed training')
        self._built = preprocessor_values(unwrapped(runner.model))
        loaded, self._loaded = self._loaded, None
        if loaded and runner.iter > 0:
            self._prepare_to_restore(runner, loaded)

    def _choose_storage(self) -> bool:
        """Write local files by the atomic backend; return whether they are local."""
        atomic_backend = {'backend': storage.BACKEND}
        is_local = (
            self.file_client_args is None
            and self.backend_args in (None, {'backend': 'local'}, atomic_backend)
            and '://' not in str(self.out_dir or '')
        )
        if is_local:
            self.backend_args = atomic_backend
        return is_local

    def _prepare_to_restore(self, runner: Runner, loaded: dict[str, Any]) -> None:
        set_preprocessor_values(unwrapped(runner.model), loaded['preprocessor'])
        seeded = any(isinstance(hook, SampleSeedHook) for hook in runner.hooks)
        caching = [] if seeded else caching_transforms(runner)  # that hook warns by itself
        if caching:
            runner.logger.warning(
                f'{", ".join(caching)}: their caches of samples begin empty. The resumed training '
                'is not the uninterrupted one bit for bit'
            )
        if loaded['other_seed'] and not seeded:
            runner.logger.warning(
                'the order of the data is not that of the interrupted training, because the '
                'sampler was built with another seed; set randomness.seed, or add SampleSeedHook'
            )
        fault = _misfit(loaded['states'])
        if fault:
            runner.logger.warning(
                f'random states are not restored: {fault}. The resumed training is not the '
                'uninterrupted one bit for bit'
            )
            return
        state = loaded['states'][runner.rank]
        loop = runner.train_loop
        if hasattr(loop, 'dataloader_iterator'):
            # The loop is going to skip the data of the iterations that were done. Loading moves
            # the random state, and so does making the next pass's iterator.
            loop.dataloader_iterator = _RestoringIterator(
                loop.dataloader_iterator, loop.iter, lambda: set_random_state(state)
            )
        else:
            self._pending = state

    def before_train_epoch(self, runner: Runner) -> None:
        """Restore the state at the last moment: making the dataloader's iterator moves it."""
        if self._pending is not None:
            set_random_state(self._pending)
            self._pending = None

    # Validation: a training resumed at the end of an epoch does not repeat it.

    def before_val(self, runner: Runner) -> None:
        """Keep the random state of training."""
        self._before_val = get_random_state()

    def after_val(self, runner: Runner) -> None:
        """Restore the random state."""
        if self._before_val is not None:
            set_random_state(self._before_val)
            self._before_val = None

    # Saving

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add which digits it saw, and, to what a training can resume from, the random states."""
        digits = record_of(runner.cfg.get('train_dataloader'))
        if digits is not None:
            checkpoint['meta'][META_KEY] = digits
        if self._gathered is not None:
            checkpoint['random_states'] = self._gathered
            checkpoint['preprocessor_values'] = {
                name: value
                for name, value in preprocessor_values(unwrapped(runner.model)).items()
                if name not in self._built or value != self._built[name]
            }

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        # All ranks come here, at the end of an epoch, of an iteration, and for a new best score.
        synchronize_models(runner)
        outdated = []
        if self.max_keep_ckpts > 0:
            kept = [kept for kept in self.keep_ckpt_ids if kept != step] + [step]
            kept, outdated = kept[-self.max_keep_ckpts :], kept[: -self.max_keep_ckpts]
            self.keep_ckpt_ids = deque(kept, self.max_keep_ckpts)
            # The checkpoint counts those still there: killed before their deletion, the resumed
            # training deletes them.
            runner.message_hub.update_info('keep_ckpt_ids', outdated + kept)
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        self._gathered = all_gather_object(self._before_val or get_random_state())
        try:
            runner.save_checkpoint(
                self.out_dir,
                name,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
        finally:
            self._gathered = None
        if is_main_process():
            storage.write(osp.join(runner.work_dir, 'last_checkpoint'), self.last_ckpt.encode())
            for old in outdated:
                path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old))
                if self.file_backend.isfile(path):
                    self.file_backend.remove(path)
                elif self.file_backend.isdir(path):  # as DeepSpeed saves them
                    self.file_backend.rmtree(path)
        if outdated:
            runner.message_hub.update_info('keep_ckpt_ids', kept)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if not self.save_best:  # as mmengine's; without a training there is no file_backend
            return
        # mmengine deletes the old best checkpoint before it writes the new one.
        backend = self.file_backend
        self.file_backend = deferring = _DeferringBackend(backend)
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            self.file_backend = backend
        best = {getattr(self, 'best_ckpt_path', None)}
        best.update(getattr(self, 'best_ckpt_path_dict', {}).values())
        for delete, path in deferring.deletions:
            if path not in best:
                delete(path)

    @master_only
    def _publish_model(self, runner: Runner, ckpt_path: str) -> None:
        # mmengine's would write without the backend.
        checkpoint = checkpoint_file.load(ckpt_path)
        published = {key: checkpoint[key] for key in checkpoint if key in self.published_keys}
        digest = hashlib.sha256(pickle.dumps(published)).hexdigest()[:8]
        path = f'{osp.splitext(ckpt_path)[0]}-{digest}.pth'
        save_checkpoint(published, path, backend_args=self.backend_args)
        runner.logger.info(f'{ckpt_path} is published as {path}')


class _RestoringIterator:
    """``iterator``, with ``restore()`` called before what follows its first ``skipped`` items."""

    def __init__(self, iterator: Iterator, skipped: int, restore: Callable[[], None]) -> None:
        self._iterator = iterator
        self._skipped = skipped
        self._restore = restore

    def __next__(self) -> Any:
        if self._skipped == 0:
            self._restore()
        self._skipped -= 1
        return next(self._iterator)


class _DeferringBackend:
    """A storage backend that keeps deletions for later."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.deletions: list[tuple[Callable[[str], None], str]] = []

    def remove(self, path: str) -> None:
        self.deletions.append((self._backend.remove, path))

    def rmtree(self, path: str) -> None:
        self.deletions.append((self._backend.rmtree, path))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


def _misfit(states: list[dict[str, Any]] | None) -> str:
    """Return why this training cannot restore ``states``; '' if it can."""
    if states is None:
        return 'the checkpoint has none (it was not written by ResumableCheckpointHook)'
    if len(states) != get_world_size():
        return f'the checkpoint is of {len(states)} processes, this training of {get_world_size()}'
    devices, here = len(states[0]['cuda']), len(get_random_state()['cuda'])
    if devices != here:
        return f'the checkpoint is of {devices} CUDA devices a process, this training of {here}'
    return ''


def _expected_size(runner: Runner) -> int:
    optimizer = wrappers_in(runner.optim_wrapper)[0].optimizer
    return checkpoint_bytes(runner.model, {'type': type(optimizer).__name__, **optimizer.defaults})
