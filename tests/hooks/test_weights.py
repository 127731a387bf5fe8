"""The best weights follow a metric that the validation gives."""
from types import SimpleNamespace

import pytest

from mmincubation.errors import ConfigError
from mmincubation.hooks import WeightsHook


def test_a_metric_that_is_not_measured_is_named():
    """Of a metric that no check knows; a validation without any metric has no best."""
    hook, runner = WeightsHook(metric='mine/score'), SimpleNamespace(_train_loop=None)
    hook.after_val_epoch(runner, {})
    with pytest.raises(ConfigError, match="WeightsHook.metric='mine/score': the validation gives mine/other; correct"):
        hook.after_val_epoch(runner, {'mine/other': 1.})
