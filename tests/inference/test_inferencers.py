"""After `import mmincubation`, mmdet's and mmseg's own functions predict with our checkpoints, read as data."""
import importlib
import os
import sys

import numpy as np
import pytest
import torch
from mmengine.runner import checkpoint as mmengine_checkpoint
from PIL import Image

import mmincubation
from mmincubation.compat.on_import import ImportListener, after_import
from tests.helpers.forked import CONTEXT, LIMIT
from tests.helpers.models import small_model


def detect(config: str, checkpoint: str, image: str):
    """The scores that mmdet's functions find, and their model."""
    from mmdet.apis import DetInferencer, inference_detector, init_detector
    model = init_detector(config, checkpoint, device='cpu')
    found = inference_detector(model, image).pred_instances
    inferencer = DetInferencer(config, checkpoint, device='cpu', show_progress=False)
    theirs = inferencer(image, no_save_pred=True, no_save_vis=True)['predictions'][0]
    assert theirs['labels'] == found.labels.tolist() and len(theirs['labels']) > 0
    return model, found.scores.numpy()


def segment(config: str, checkpoint: str, image: str):
    """The class map that mmseg's functions find, and their model."""
    from mmseg.apis import MMSegInferencer, inference_model, init_model
    model = init_model(config, checkpoint, device='cpu')
    found = inference_model(model, image).pred_sem_seg.data[0].numpy()
    assert (MMSegInferencer(config, checkpoint, device='cpu')(image)['predictions'] == found).all()
    return model, found


class Live:
    """A pickle that makes a file when it is executed."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, 'w')


def use(infer, paths: list[str], out: str) -> None:
    """In a process that no tool has prepared: write what `infer` finds, and try to load a live payload."""
    model, found = infer(*paths)
    assert model.dataset_meta['palette'][1] is not None
    np.save(out, found)
    torch.save(dict(state_dict={}, meta=Live(f'{out}.ran')), f'{out}.pth')
    os.environ['TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'] = '1'
    try:
        mmengine_checkpoint.load_checkpoint(model, f'{out}.pth')
    except ValueError as error:
        assert 'refused' in str(error), error
    else:
        raise AssertionError('it was loaded')
    assert not os.path.exists(f'{out}.ran')


@pytest.mark.parametrize('task, infer, key', [('detection', detect, 'scores'), ('segmentation', segment, 'classes')])
def test_their_own_functions_take_our_checkpoints(task, infer, key, tmp_path):
    image = tmp_path / 'image.png'
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).save(image)
    config, checkpoint = small_model(task, tmp_path)
    process = CONTEXT.Process(target=use, args=(infer, [str(config), str(checkpoint), str(image)],
                                                str(tmp_path / 'out.npy')))
    process.start()
    process.join(LIMIT)
    assert process.exitcode == 0
    ours = mmincubation.load_model(config, checkpoint).predict(image)[key]
    np.testing.assert_allclose(np.load(tmp_path / 'out.npy'), ours, atol=1e-5)


def test_what_waits_for_an_import_is_called_once_after_it(tmp_path, monkeypatch):
    (tmp_path / 'late_module.py').write_text('value = 1')
    monkeypatch.syspath_prepend(tmp_path)
    calls = []
    for _ in range(2):
        after_import('late_module', lambda: calls.append(sys.modules['late_module'].value))
    try:
        assert not calls and importlib.import_module('late_module').value == 1
        assert calls == [1]
        after_import('late_module', lambda: calls.append('at once'))
        assert calls == [1, 'at once']
    finally:
        sys.modules.pop('late_module', None)
        sys.meta_path[:] = [f for f in sys.meta_path if not isinstance(f, ImportListener) or f.name != 'late_module']


def test_here_too_mmengine_reads_by_our_function():
    assert mmengine_checkpoint.CheckpointLoader._schemes[''].__module__.startswith('mmincubation')
