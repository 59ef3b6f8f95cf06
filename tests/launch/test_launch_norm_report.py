"""The launcher reports the norm layers of every training, once."""

import pytest


@pytest.mark.parametrize('more', ['', "custom_hooks = [dict(type='NormReportHook')]\n"])
def test_training_reports_its_norms_once(project, train, more):
    config = project.write_config("custom_imports['imports'].append('normplug')\n" + more)
    assert train([config]) == 0
    assert project.log().count('norms: BatchNorm1d 1 training') == 1
