"""Where a result says that it comes from."""
import os

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import LOG_PROCESSORS
from mmengine.runner import LogProcessor
from torch import nn

from mmincubation import provenance
from mmincubation.engine.runner import ToolRunner
from tests.helpers.toy import e2e_config


def test_config_hash_knows_what_matters():
    base = dict(model=dict(type='x'), train_cfg=dict(type='L', epochs=1))
    same = dict(base, work_dir='w', resume=True, load_from='a.pth', launcher='none', train_cfg=dict(
        type='L', epochs=1, phase='meta', weights_dir='w'))
    digest = provenance.config_sha256(Config(base))
    assert provenance.config_sha256(Config(same)) == digest
    for other in (dict(base, load_from='a.pth'), dict(base, train_cfg=dict(type='L', epochs=2))):
        assert provenance.config_sha256(Config(other)) != digest


def test_load_report_becomes_weights():
    report = dict(path='w.safetensors', sha256='a' * 64, coverage='all', extra=1)
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    assert provenance.loaded_weights(model) is None
    model[1].load_report = report
    assert provenance.loaded_weights(model) == dict(path='w.safetensors', sha256='a' * 64, coverage='all')


def test_newest_pictures_are_those_of_the_last_start(tmp_path):
    for number, stamp in enumerate(('20300101', '20300102')):
        folder = tmp_path / stamp / 'vis_data' / 'vis_image'
        folder.mkdir(parents=True)
        for image in range(6):
            (folder / f'{image}.png').touch()
            os.utime(folder / f'{image}.png', ns=(0, number * 100 + image))
    assert provenance.newest_pictures(tmp_path) == [f'20300102/vis_data/vis_image/{i}.png' for i in (2, 3, 4, 5)]
    assert provenance.newest_pictures(tmp_path / 'none') == []


def test_dataset_name_looks_into_wrappers():
    inner = dict(type='CocoDataset', data_root='data/', ann_file='a.json', data_prefix=dict(img='train/'))
    assert provenance.dataset_name(dict(type='RepeatDataset', dataset=inner)) == 'CocoDataset data/ a.json train/'


class Pictures:
    """A data set of mmengine's kind: names and files."""

    def __init__(self, folder, pixels):
        self.files = []
        for i, byte in enumerate(pixels):
            folder.mkdir(exist_ok=True)
            (folder / f'{i}.png').write_bytes(bytes([byte]))
            self.files.append(str(folder / f'{i}.png'))

    def __len__(self):
        return len(self.files)

    def get_data_info(self, index):
        return dict(img_path=self.files[index])


class Labelled(Pictures):
    """As mmseg's and mmdet's data sets: label pictures, or objects, without a JSON file."""

    def __init__(self, folder, labels: list[bytes], objects: int = 0):
        super().__init__(folder, [0] * len(labels))
        self.objects = objects
        for file, content in zip(self.files, labels, strict=True):
            open(f'{file}.label', 'wb').write(content)

    def get_data_info(self, index):
        return super().get_data_info(index) | dict(
            seg_map_path=f'{self.files[index]}.label', instances=[dict(bbox=[0, 0, 1, self.objects])])


def test_data_of_equal_pictures_and_other_labels_differ(tmp_path):
    def digest(name, *given):
        return provenance.content_digest(Labelled(tmp_path / name, *given))

    many = [b'1'] * 40
    assert digest('a', many) == digest('b', many)
    assert digest('a', many) != digest('c', [*many[:-1], b'12'])  # not among the sampled ones: its size tells
    assert digest('a', many) != digest('d', many, 7)


def test_data_of_equal_names_and_other_pictures_differ_wherever_they_lie(tmp_path):
    one, moved = Pictures(tmp_path / 'a', b'123'), Pictures(tmp_path / 'b', b'123')
    assert provenance.content_digest(one) == provenance.content_digest(moved)
    assert provenance.content_digest(one) != provenance.content_digest(Pictures(tmp_path / 'c', b'124'))
    (tmp_path / 'a/0.png').unlink()
    assert len(provenance.content_digest(one)) == 12
    assert provenance.content_digest([1, 2]) is None


@LOG_PROCESSORS.register_module()
class OwnLogProcessor(LogProcessor):
    """A log processor of another project."""


@pytest.mark.parametrize('kind', ['LogProcessor', 'mmincubation.PhaseLogProcessor', 'OwnLogProcessor'])
def test_log_lines_do_not_forget_the_peak_memory_of_a_gpu(images, tmp_path, monkeypatch, kind):
    """mmengine's get_max_cuda_memory begins anew at each."""
    peak, cfg = [300 * 2**20], e2e_config(images, tmp_path)
    cfg.log_processor.type, cfg.experiment_name = kind, str(tmp_path)
    runner = ToolRunner.from_cfg(cfg)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'max_memory_allocated', lambda device=None: peak[0])
    monkeypatch.setattr(torch.cuda, 'reset_peak_memory_stats', lambda device=None: peak.__setitem__(0, 0))
    assert [runner.log_processor._get_max_memory(runner) for _ in range(2)] == [300, 300]
    assert provenance.peak_memory_mib() == 300
