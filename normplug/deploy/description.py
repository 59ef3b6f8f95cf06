"""Build the model of a config that tools/deploy.py has written."""

from collections.abc import Mapping

from mmengine.registry import MODELS
from torch import nn

from normplug.models import place_norms
from normplug.whitened import plain_layers

__all__ = ['deployed_model', 'names_of']


def deployed_model(deployed: Mapping | None = None, **model) -> nn.Module:
    """Build a model, replace its norms, and remove the folded ones: ``DeployedModel``.

    Whitened layers become plain ones with a bias.

    Args:
        deployed: a dict of ``type``, the trained model's; ``norms``, as in
            :func:`normplug.models.place_norms`; ``folded``, dicts of the names of a ``conv`` and of
            the ``norm`` that its weight and bias stand for too.
        model: the arguments of the trained model's type, as they were.

    Returns:
        The model, of the class that ``deployed['type']`` names.

    Raises:
        ValueError: ``deployed`` is missing or malformed, or the model has no layer of a name.
    """
    if not isinstance(deployed, Mapping) or set(deployed) != {'type', 'norms', 'folded'}:
        raise ValueError(
            "type='DeployedModel' needs deployed=dict(type=..., norms=[...], folded=[...]), as "
            f'tools/deploy.py writes it; got {deployed!r}'
        )
    built = MODELS.build(dict(type=deployed['type'], **model))
    plain_layers(built)
    if deployed['norms']:
        place_norms(built, deployed['norms'])
    names = names_of(built)
    by_name = {name: layer for layer, known in names.items() for name in known}
    for i, pair in enumerate(deployed['folded']):
        try:
            conv, norm = by_name[pair['conv']], by_name[pair['norm']]
        except KeyError as error:
            raise ValueError(
                f'deployed.folded.{i}: the model has no layer {error}; the rest of the config must '
                'be that of the trained model'
            ) from error
        if conv.bias is None:
            conv.bias = nn.Parameter(conv.weight.new_zeros(conv.out_channels))
        for name in names[norm]:
            parent, _, own = name.rpartition('.')
            setattr(built.get_submodule(parent), own, nn.Identity())
    return built


def names_of(model: nn.Module) -> dict[nn.Module, list[str]]:
    """Each layer with all its names: a shared one has several."""
    names: dict[nn.Module, list[str]] = {}
    for name, layer in model.named_modules(remove_duplicate=False):
        names.setdefault(layer, []).append(name)
    return names
