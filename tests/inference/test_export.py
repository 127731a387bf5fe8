"""tools/export.py: what onnxruntime computes of the file is what the model predicts."""
from importlib.util import find_spec

import numpy as np
import pytest
import torch

import mmincubation
from mmincubation.errors import ConfigError
from mmincubation.inference import export
from tests.helpers.models import small_model
from tests.helpers.paths import ROOT

TOOL = str(ROOT / 'tools/export.py')
missing = [name for name in export.PACKAGES if find_spec(name) is None]
needs_onnx = pytest.mark.skipif(bool(missing), reason=f'optional packages are not installed: {", ".join(missing)}')


@needs_onnx
@pytest.mark.parametrize('task, side', [('classification', 8), ('segmentation', 64)])
def test_onnxruntime_predicts_what_the_model_does(task, side, tmp_path, tool):
    import onnxruntime
    config, checkpoint = small_model(task, tmp_path)
    out = tmp_path / 'model.onnx'
    done = tool(config, checkpoint, out, '--size', side, side)
    assert done.returncode == 0 and 'differ by' in done.stdout, done.stderr
    assert tool(config, checkpoint, out, '--size', side, side).returncode == 2, 'it is there already'
    assert not list(tmp_path.glob('.onnx*'))
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    image = pixels.transpose(2, 0, 1)[None].astype(np.float32)
    [logits] = onnxruntime.InferenceSession(str(out), providers=['CPUExecutionProvider']).run(None, dict(image=image))
    model = mmincubation.load_model(config, checkpoint)
    for module in model.model.modules():
        if hasattr(module, 'bf16'):
            module.bf16 = False
    result = model.predict(pixels)
    if task == 'classification':
        scores = torch.from_numpy(logits[0]).softmax(0).tolist()
        np.testing.assert_allclose(scores, [result['scores'][name] for name in model.names], atol=1e-4)
    else:
        assert (logits[0].argmax(0) == result['classes']).mean() > 0.999


def test_what_cannot_be_exported_is_named(images, tmp_path, monkeypatch):
    model = mmincubation.load_model(*small_model('classification', tmp_path, images))
    monkeypatch.setattr(export, 'PACKAGES', ('no_such_package',))
    with pytest.raises(ConfigError, match='needs no_such_package: python -m pip install'):
        export.export(model, tmp_path / 'model.onnx', (8, 8))
    monkeypatch.setattr(export, 'PACKAGES', ())
    with pytest.raises(ConfigError, match='--size 9 8: AssertionError: Input height'):
        export.export(model, tmp_path / 'model.onnx', (9, 8))
    model.model = torch.nn.Linear(1, 1)
    with pytest.raises(ConfigError, match='a Linear is not exported'):
        export.export(model, tmp_path / 'model.onnx', (8, 8))
