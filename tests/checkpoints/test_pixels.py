"""What a file, or a config beside it, says of the mean and the std of its images."""
import json

import pytest

from mmincubation.checkpoints import inspect_weights, write_tensors
from mmincubation.checkpoints.convert import convert
from mmincubation.checkpoints.pixels import stated_pixels
from tests.helpers.weight_files import ARCH, random_vit

HALF = [127.5, 127.5, 127.5]
HF = dict(image_mean=[.5] * 3, image_std=[.5] * 3)
TIMM = dict(architecture='vit_of_tomorrow', pretrained_cfg=dict(mean=[.5] * 3, std=[.5] * 3))


@pytest.mark.parametrize('name, content, stated', [
    ('config.json', TIMM, True), ('config.json', dict(architecture='vit_of_tomorrow'), False),
    ('config.json', dict(TIMM, pretrained_cfg=dict(mean=.5)), False), ('config.json', [1], False),
    ('preprocessor_config.json', HF, True), ('preprocessor_config.json', dict(HF, do_normalize=False), False),
    ('preprocessor_config.json', dict(image_mean='x', image_std=[.5] * 3), False), ('other.json', HF, False)])
def test_configs_beside(name, content, stated, tmp_path):
    path = tmp_path / 'model.safetensors'
    write_tensors(path, random_vit().state_dict(), {})
    (tmp_path / name).write_text(json.dumps(content))
    for source in (path, tmp_path):  # a folder has the one file
        found = stated_pixels(source)
        assert bool(found) == stated
        assert not stated or (found.mean, found.std) == (HALF, HALF) and found.source.startswith(f'{tmp_path}/{name}')


def test_a_converted_file_keeps_them(tmp_path):
    (tmp_path / 'hf').mkdir()
    write_tensors(tmp_path / 'hf/model.safetensors', random_vit().state_dict(), {})
    (tmp_path / 'hf/preprocessor_config.json').write_text(json.dumps(HF))
    convert(str(tmp_path / 'hf/model.safetensors'), tmp_path / 'a.safetensors', arch=dict(num_heads=2, norm_eps=1e-6))
    convert(str(tmp_path / 'a.safetensors'), tmp_path / 'b.pth', to='mmpretrain')
    for name in ('a.safetensors', 'b.pth'):
        found = stated_pixels(tmp_path / name)
        assert (found.mean, found.std, found.source) == (HALF, HALF, str(tmp_path / name))
    assert inspect_weights(tmp_path / 'b.pth').arch.items() <= ARCH.to_dict().items()


def test_a_file_that_is_not_there_says_nothing(tmp_path):
    assert stated_pixels(tmp_path / 'gone.pth') is None
