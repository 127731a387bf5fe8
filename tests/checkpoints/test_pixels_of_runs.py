"""Every file that a run of a classifier writes states the mean and the std of its images, and what is made of it."""
import pytest

from mmincubation.checkpoints import write_tensors
from mmincubation.checkpoints.convert import convert
from mmincubation.checkpoints.pixels import stated_pixels
from mmincubation.engine.launch import train
from mmincubation.incubation.assemble import assemble
from mmincubation.inference.publish import publish
from tests.helpers.toy import arguments, e2e_config, incubation_config

OWN = dict(mean=[200.5] * 3, std=[20.25] * 3)
E2E = 'epoch_1.pth', 'weights/e2e_last.safetensors'
INCUBATION = ('epoch_4.pth', 'weights/assembled.safetensors', 'weights/finetune_best.safetensors',
              'weights/meta_last.safetensors')


@pytest.fixture(scope='module', params=[(e2e_config, E2E), (incubation_config, INCUBATION)], ids=['e2e', 'incubation'])
def written(images, tmp_path_factory, request):
    """The folder of a run, and the names of its files."""
    make, names = request.param
    folder = tmp_path_factory.mktemp('run')
    cfg = make(images, folder, **dict(epochs=1) if make is e2e_config else {})
    cfg.model.data_preprocessor = dict(type='mmincubation.ClsDataPreprocessor', **OWN)
    cfg.dump(folder / 'config.py')
    assert train(arguments(folder / 'config.py')) == 0
    return folder, names


def test_every_file_of_a_run_says_them(written, tmp_path):
    folder, names = written
    made = [folder / name for name in names]
    for i, path in enumerate(made[:2]):  # a checkpoint, and weights
        convert(str(path), tmp_path / f'{i}.safetensors')
    publish(made[0], tmp_path / 'published')
    made += [tmp_path / '0.safetensors', tmp_path / '1.safetensors', tmp_path / 'published/model.safetensors']
    if names is INCUBATION:
        write_tensors(tmp_path / 'joined.safetensors',
                      *assemble([folder / f'weights/module_{i}_last.safetensors' for i in range(2)]))
        made.append(tmp_path / 'joined.safetensors')
    for path in made:
        found = stated_pixels(path)
        assert found and (found.mean, found.std, found.source) == (OWN['mean'], OWN['std'], str(path)), path
