# The same model on the test set, in the form that the test server of Cityscapes takes.
_base_ = ['./fcn_r50-d8_gn_cityscapes.py', '../_base_/datasets/cityscapes_test-server.py']

custom_imports = dict(imports=['normplug', 'normplug.datasets'])
test_dataloader = dict(_delete_=True, **_base_.server_dataloader)
test_evaluator = dict(_delete_=True, **_base_.server_evaluator)
tta_pipeline = _base_.server_tta_pipeline
