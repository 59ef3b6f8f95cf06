# What every config of this project adds to the runtime of its OpenMMLab base.
custom_imports = dict(imports=['normplug'])

# Samples that a resumed training repeats, and a stop where the loss becomes NaN.
custom_hooks = [dict(type='SampleSeedHook'), dict(type='NonFiniteLossHook')]
