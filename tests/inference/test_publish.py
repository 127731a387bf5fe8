"""tools/publish.py: a folder whose weights predict and test as the checkpoint does, without the rest of it."""
import pickle

import numpy as np
import pytest
import torch
from mmengine.runner import load_checkpoint
from safetensors import safe_open

import mmincubation
from mmincubation.checkpoints import CheckpointError, open_vit
from mmincubation.engine import launch
from tests.helpers.models import TASKS, small_model
from tests.helpers.paths import ROOT
from tests.helpers.results import put
from tests.helpers.toy import arguments

TOOL = str(ROOT / 'tools/publish.py')


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    """(config, checkpoint) of each task, with a made-up result beside the checkpoint."""
    folder, made = tmp_path_factory.mktemp('models'), {}
    for task in TASKS:
        (folder / task).mkdir()
        made[task] = small_model(task, folder / task)
        put(folder / f'{task}_result', 'e2e', 0.5, task).rename(folder / task / 'result.json')
    return made


def predictions(config, checkpoint, folder):
    assert launch.test(arguments(config, checkpoint=str(checkpoint), work_dir=str(folder / 'work'),
                                 out=str(folder / 'out.pkl'))) == 0
    return pickle.loads((folder / 'out.pkl').read_bytes())


@pytest.mark.parametrize('task', TASKS)
def test_the_folder_is_as_good_as_the_checkpoint(task, models, tmp_path, tool):
    config, checkpoint = models[task]
    out = tmp_path / 'published'
    done = tool(checkpoint, out)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in out.iterdir()) == ['README.md', 'config.py', 'model.safetensors']
    assert (out / 'model.safetensors').stat().st_size < checkpoint.stat().st_size
    assert 'python tools/test.py config.py model.safetensors' in (out / 'README.md').read_text()
    theirs, ours = mmincubation.load_model(config, checkpoint), mmincubation.load_model(out / 'config.py', out)
    assert ours.names == theirs.names and (task == 'classification' or (ours.palette == theirs.palette).all())
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    for mine, other in zip(ours.predict(image).values(), theirs.predict(image).values(), strict=True):
        np.testing.assert_equal(mine, other)
    before, after = (predictions(*pair, tmp_path) for pair in (
        (config, checkpoint), (out / 'config.py', out / 'model.safetensors')))
    assert len(before) == len(after) and str(before) == str(after)


def test_a_classifier_is_a_vit_of_timms_names(models, tmp_path, tool):
    assert tool(models['classification'][1], tmp_path / 'out').returncode == 0
    with safe_open(tmp_path / 'out/model.safetensors', 'pt') as file:
        assert {'cls_token', 'head.weight'} <= set(file.keys())
    assert open_vit(tmp_path / 'out').header['classes'] == ['0', '1', '2']


def test_a_detector_is_read_by_mmengine_and_as_a_backbone(models, tmp_path, tool):
    assert tool(models['detection'][1], tmp_path / 'out').returncode == 0
    model = mmincubation.load_model(tmp_path / 'out/config.py', tmp_path / 'out').model
    first = torch.nn.utils.parameters_to_vector(model.parameters()).clone()
    torch.nn.utils.vector_to_parameters(torch.zeros_like(first), model.parameters())
    read = load_checkpoint(model, str(tmp_path / 'out/model.safetensors'))
    assert (torch.nn.utils.parameters_to_vector(model.parameters()) == first).all()
    assert len(read['meta']['dataset_meta']['classes']) == 80
    vit = open_vit(tmp_path / 'out')
    assert vit.format == 'mmengine' and 'blocks.0.attn.qkv.weight' in vit.tensors


def test_what_cannot_be_published_is_one_line(models, tmp_path, tool):
    torch.save(dict(state_dict={}), tmp_path / 'bare.pth')
    content = torch.load(models['classification'][1], weights_only=False)
    content['state_dict']['vit.norm.bias'][0] = float('nan')
    torch.save(content, tmp_path / 'nan.pth')
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full/notes.txt').write_text('mine')
    for args, words in (((tmp_path / 'bare.pth', tmp_path / 'out'), 'no checkpoint of a run'),
                        ((tmp_path / 'nan.pth', tmp_path / 'out'), 'not finite'),
                        ((tmp_path / 'none.pth', tmp_path / 'out'), 'does not exist'),
                        ((models['classification'][1], tmp_path / 'full'), 'give a new folder')):
        done = tool(*args)
        assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / 'out').exists()


def test_a_header_from_elsewhere_is_refused_in_one_line(models, tmp_path):
    from mmincubation.checkpoints import write_tensors
    config, checkpoint = models['classification']
    for meta in (dict(dataset_meta=7, arch='x'), dict(dataset_meta=dict(classes=7, palette='red'))):
        write_tensors(tmp_path / 'odd.safetensors', {'x': torch.zeros(1)}, dict(kind='model', meta=meta))
        with pytest.raises(CheckpointError, match='is no checkpoint of the ViTClassifier|no ViT in a known format'):
            mmincubation.load_model(config, tmp_path / 'odd.safetensors')
