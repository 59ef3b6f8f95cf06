"""What a layer launches one by one, outside of the steps that a backend compiles."""

from collections import Counter
from contextlib import contextmanager

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_NO_WORK = {'empty', 'empty_strided', 'empty_like', 'new_empty', '_unsafe_view'}


class OutsideSteps(TorchDispatchMode):
    """Counts operators by name, but for views and empty memory.

    Args:
        dtype: count those only that take a tensor of this type.

    Attributes:
        names: operator → how often it ran.
        steps: step → how often it ran.
    """

    def __init__(self, dtype=None):
        super().__init__()
        self.dtype = dtype
        self.names, self.steps, self._in_step = Counter(), Counter(), False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if not (self._in_step or func.is_view or name in _NO_WORK):
            taken = [leaf.dtype for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            self.names[name] += self.dtype is None or self.dtype in taken
        return func(*args, **(kwargs or {}))

    @contextmanager
    def counting(self, monkeypatch, *modules):
        """Count in this context; ``modules`` hold ``run`` of the backend."""

        def run(step, *args):
            self.steps[step.__name__] += 1
            self._in_step = True
            try:
                return step(*args)
            finally:
                self._in_step = False

        with monkeypatch.context() as patch, self:
            for module in modules:
                patch.setattr(module, 'run', run)
            yield self
