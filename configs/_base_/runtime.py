# What every config of this project adds to the runtime of its OpenMMLab base.
custom_imports = dict(imports=['normplug'])
