"""The norms of the teacher of a semi-supervised model, the moving average of its student."""

from torch import nn

from normplug.norms.whitening import WhiteningNorm

__all__ = ['has_lost_statistics', 'twins_in_student']


def twins_in_student(
    model: nn.Module, kinds: tuple[type[nn.Module], ...]
) -> dict[nn.Module, nn.Module]:
    """Layer of ``model.teacher`` → that of the same name and type in ``model.student``.

    Empty for a model that has not both.
    """
    student, teacher = getattr(model, 'student', None), getattr(model, 'teacher', None)
    if not (isinstance(student, nn.Module) and isinstance(teacher, nn.Module)):
        return {}
    layers = dict(student.named_modules())
    return {
        layer: layers[name]
        for name, layer in teacher.named_modules()
        if isinstance(layer, kinds) and type(layers.get(name)) is type(layer)
    }


def has_lost_statistics(teacher: nn.Module, student: nn.Module) -> bool:
    """Whether running statistics are at 0 and 1, as built, in the teacher, but not in the student.

    Not whether it counted batches: an average of models leaves integers as they are.
    """
    if getattr(teacher, 'running_mean', None) is None:
        return False
    return _is_as_built(teacher) and not _is_as_built(student)


def _is_as_built(layer: nn.Module) -> bool:
    if isinstance(layer, WhiteningNorm):  # matrices, the identity at first
        spread = layer.running().var.diagonal(dim1=-2, dim2=-1)
    else:
        spread = layer.running_var
    return not layer.running_mean.any() and bool((spread == 1).all())
