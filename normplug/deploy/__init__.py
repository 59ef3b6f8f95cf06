"""After training: a network of native layers, and its ONNX graph."""

from mmengine.registry import MODELS

from normplug.deploy.description import deployed_model

__all__ = ['deployed_model']

MODELS.register_module(name='DeployedModel', module=deployed_model)
