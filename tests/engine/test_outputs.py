"""What the options of tools/test.py write, on any nesting of data sets and for every task."""
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData
from PIL import Image

from mmincubation.config.load import load_config
from mmincubation.config.problems import problems
from mmincubation.datasets.files import common_folder, path_below
from mmincubation.downstream import LabelPictures
from mmincubation.engine import outputs
from mmincubation.errors import ConfigError
from mmincubation.hooks import TestPicturesHook as PicturesHook
from tests.helpers.paths import ROOT

LEAF = dict(type='CocoDataset', ann_file='a.json', data_prefix=dict(img='img/'), pipeline=[
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
    dict(type='TestTimeAug', transforms=[[dict(type='LoadAnnotations')], [dict(type='PackDetInputs')]])])


def leaf(root: str, **more) -> dict:
    return dict(LEAF, data_root=root, **more)


NESTED = [
    leaf('/a'), dict(type='ConcatDataset', datasets=[leaf('/a'), leaf('/b')]),
    dict(type='RepeatDataset', times=2, dataset=leaf('/a')),
    dict(type='ConcatDataset', datasets=[dict(type='RepeatDataset', times=2, dataset=leaf('/a')), leaf('/b')])]
COCO = dict(type='CocoMetric', ann_file='a.json', metric='bbox')


def config(dataset: dict, evaluator=COCO, **more) -> Config:
    return Config(dict(default_scope='mmdet', work_dir='/tmp/w', model=dict(type='MaskRCNN'), test_evaluator=evaluator,
                       test_dataloader=dict(dataset=dataset), **more))


def leaves(cfg: Config) -> list:
    found, left = [], [cfg.test_dataloader.dataset]
    while left:
        node = left.pop()
        inner = node.get('datasets') or [node[key] for key in ('dataset', ) if key in node]
        left, found = left + list(inner), found + ([] if inner else [node])
    return found


@pytest.mark.parametrize('dataset', NESTED)
def test_tta_reaches_every_data_set(dataset):
    cfg = config(dataset, tta_model=dict(type='DetTTAModel'), tta_pipeline=[dict(type='New')])
    outputs.use_tta(cfg, 'x.py')
    assert all(found.pipeline == [dict(type='New')] for found in leaves(cfg)) and cfg.model.module.type == 'MaskRCNN'
    assert 'pipeline' not in cfg.test_dataloader.dataset or cfg.test_dataloader.dataset in leaves(cfg)


@pytest.mark.parametrize('dataset', NESTED)
def test_format_only_reads_no_truth_in_any_data_set(dataset, tmp_path):
    cfg = config(dataset)
    outputs.format_only(cfg, str(tmp_path / 'new/x'))
    for found in leaves(cfg):
        assert found.pipeline == [dict(type='LoadImageFromFile'),
                                  dict(type='TestTimeAug', transforms=[[dict(type='PackDetInputs')]])]
    assert cfg.test_evaluator == [dict(COCO, format_only=True, outfile_prefix=str(tmp_path / 'new/x'))]
    assert not (tmp_path / 'new').exists()  # nothing is made before the run


DUMP = dict(type='mmengine.DumpResults', out_file_path='x.pkl')
VOC = dict(type='VOCMetric')


@pytest.mark.parametrize('evaluator, kept', [
    ([COCO, VOC], ['CocoMetric']), ([COCO, DUMP], ['CocoMetric', 'mmengine.DumpResults']),
    (dict(metrics=[VOC, COCO]), ['CocoMetric']),
    (dict(type='mmincubation.FastCocoMetric', ann_file='a.json'), ['mmincubation.FastCocoMetric'])])
def test_metrics_that_write_are_kept(evaluator, kept):
    cfg = config(leaf('/a'), evaluator)
    outputs.format_only(cfg, 'x')
    found = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else cfg.test_evaluator.metrics
    assert [metric.type for metric in found] == kept
    assert all(metric.format_only for metric in found if 'Coco' in metric.type)


def test_each_data_set_of_a_multi_datasets_evaluator_has_files_of_its_own():
    metrics = [COCO, dict(COCO, ann_file='b.json')]
    both = dict(type='MultiDatasetsEvaluator', metrics=metrics, dataset_prefixes=['p', 'q'])
    cfg = config(NESTED[1], both)
    outputs.format_only(cfg, '/tmp/x')
    assert [metric.outfile_prefix for metric in cfg.test_evaluator.metrics] == ['/tmp/x.p', '/tmp/x.q']
    with pytest.raises(ConfigError, match='--out: MultiDatasetsEvaluator gives each data set a metric of its own'):
        outputs.dump(config(NESTED[1], both), 'x.pkl')
    with pytest.raises(ConfigError, match='writes no predictions'):
        outputs.format_only(config(NESTED[1], dict(both, metrics=[COCO, VOC])), '/tmp/x')


@pytest.mark.parametrize('evaluator, says', [
    (VOC, 'VOCMetric writes no predictions'), ([DUMP], 'mmengine.DumpResults writes no predictions'),
    (dict(type='CocoMetric'), 'CocoMetric has no ann_file')])
def test_metrics_that_cannot_write(evaluator, says):
    with pytest.raises(ConfigError, match=f'--format-only: {says}'):
        outputs.format_only(config(leaf('/a'), evaluator), 'x')


@pytest.mark.parametrize('evaluator', [COCO, [COCO], dict(metrics=COCO), dict(metrics=[COCO])])
def test_a_pickle_beside_any_evaluator(evaluator, tmp_path):
    cfg = config(leaf('/a'), evaluator)
    outputs.dump(cfg, str(tmp_path / 'new/x.pkl'))
    metrics = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else cfg.test_evaluator.metrics
    assert metrics == [COCO, dict(type='mmdet.DumpDetResults', out_file_path=str(tmp_path / 'new/x.pkl'))]


@pytest.mark.parametrize('option, path, says', [
    ('--out', 'folder.pkl', 'is a folder, give a file'), ('--show-dir', 'file', 'is a file, give a folder'),
    ('--out', 'file/x.pkl', 'is a file, not a folder'), ('--show-dir', 'file/a/b', 'is a file, not a folder')])
def test_places_that_cannot_be_written(option, path, says, tmp_path):
    (tmp_path / 'file').touch()
    (tmp_path / 'folder.pkl').mkdir()
    with pytest.raises(ConfigError, match=f'{option} .*{says}'):
        outputs.writable(option, str(tmp_path / path), folder=option == '--show-dir')


def test_relative_places_are_below_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert outputs.writable('--out', 'a/../b/x.pkl') == str(tmp_path / 'b/x.pkl')
    (tmp_path / 'out').mkdir()
    cfg = config(leaf('/a'))
    outputs.format_only(cfg, 'out')  # a folder instead of a prefix
    assert cfg.test_evaluator[0].outfile_prefix == str(tmp_path / 'out/predictions')


def test_a_segmentor_without_labels():
    cfg = load_config(ROOT / 'configs/demo/upernet_vit_demo_incub_grow.py')
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[cfg.test_dataloader.dataset])
    before = cfg.test_dataloader.dataset.datasets[0].data_prefix.img_path
    outputs.format_only(cfg, '/tmp/labels')
    [found] = leaves(cfg)
    assert found.data_prefix == dict(img_path=before)
    assert not any('LoadAnnotations' in step.type for step in found.pipeline)
    images = common_folder(found)
    assert cfg.test_evaluator == [dict(type='mmincubation.LabelPictures', output_dir='/tmp/labels', images=images)]
    cfg.launcher = 'none'
    assert not [line for line in problems(cfg, 'test') if 'LabelPictures' in line]


@pytest.mark.parametrize('shape', [(9, 1), (1, 9), (1, 1), (5, 7), (1, 4, 1), (1, 1, 4)])
def test_label_pictures_of_all_shapes(shape, tmp_path):
    labels = torch.arange(np.prod(shape)).reshape(shape)
    write(tmp_path, '/data/img/cam/7.jpg', labels)
    read = np.asarray(Image.open(tmp_path / 'cam/7.png'))
    assert read.dtype == np.uint8 and np.array_equal(read, labels.reshape(shape[-2:]).numpy())


def write(folder, path, labels, **more) -> None:
    metric = LabelPictures(str(folder), '/data/img')
    metric.process({}, [dict(img_path=path, pred_sem_seg=dict(data=labels), **more)])
    assert metric.evaluate(1) == {}


def test_labels_of_many_classes_and_of_reduced_ones(tmp_path):
    labels = torch.tensor([[[0, 255, 300]]])
    write(tmp_path, '/data/img/wide.png', labels)
    write(tmp_path, '/data/img/less.png', labels[..., :1], reduce_zero_label=True)  # as mmseg: one higher
    assert np.asarray(Image.open(tmp_path / 'wide.png')).tolist() == [[0, 255, 300]]
    assert np.asarray(Image.open(tmp_path / 'less.png')).tolist() == [[1]]


def test_images_of_one_name_have_places_of_their_own(tmp_path):
    for path in ('/data/img/a/0.png', '/data/img/b/0.png', '/other/0.png', '/data/0.png'):
        write(tmp_path, path, torch.zeros(1, 2, 2, dtype=torch.long))
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob('*.png')) == [
        'a/0.png', 'b/0.png', 'data/0.png', 'other/0.png']
    assert path_below('/data', '/data/../etc/x') == 'etc/x'


def test_the_folder_of_all_images():
    assert common_folder(leaf('/d/a')) == '/d/a/img' and common_folder(NESTED[0]) == '/a/img'
    both = dict(type='ConcatDataset', datasets=[leaf('/d/a'), leaf('/d/b')])
    assert common_folder(both) == '/d' and path_below('/d', '/d/a/img/0.png') == 'a/img/0.png'
    assert common_folder(dict(type='mmincubation.ImageFolder', root='/d/val')) == '/d/val'


# --- pictures

def draw(hook, outputs: list, batch: dict, dataset) -> list[str]:
    from mmengine.visualization import Visualizer
    warned = []
    runner = SimpleNamespace(
        visualizer=Visualizer(), test_dataloader=SimpleNamespace(dataset=dataset),
        logger=SimpleNamespace(warning=warned.append, info=warned.append))
    hook.after_test_iter(runner, 0, batch, outputs)
    hook.after_test_epoch(runner)
    return warned


def photo(path, size=(20, 10)) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size, 'gray').save(path)
    return str(path)


@pytest.mark.parametrize('task', ['mmdet', 'mmseg', 'classification'])
def test_pictures_lie_alike_for_all_tasks(task, tmp_path):
    from mmdet.structures import DetDataSample
    from mmseg.structures import SegDataSample
    paths = [photo(tmp_path / f'img/{name}') for name in ('a/0.png', 'b/0.png', '1.jpg', 'c/2.tif')]
    dataset, batch, found = SimpleNamespace(metainfo=dict(classes=('x', 'y'), palette=[[1, 2, 3], [4, 5, 6]])), {}, []
    for path in paths if task != 'classification' else ():
        sample = DetDataSample() if task == 'mmdet' else SegDataSample()
        sample.set_metainfo(dict(img_path=path))
        if task == 'mmdet':
            sample.pred_instances = InstanceData(
                bboxes=torch.tensor([[1., 1, 9, 9]]), labels=torch.tensor([1]), scores=torch.tensor([.9]))
        else:
            sample.pred_sem_seg = PixelData(data=torch.ones(1, 10, 20, dtype=torch.long))
            sample.gt_sem_seg = PixelData(data=torch.ones(1, 5, 10, dtype=torch.long))  # resized with the image
        found.append(sample)
    if task == 'classification':
        dataset.name, dataset.labels = (lambda i: paths[i]), [0] * 4
        batch = dict(inputs=torch.zeros(4, 3, 8, 8, dtype=torch.uint8), index=torch.arange(4))
        found = [dict(label=0, scores=torch.tensor([.1, .9]))] * 4
    hook = PicturesHook(str(tmp_path / 'shown'), str(tmp_path / 'img'))
    init_default_scope('mmengine')
    assert draw(hook, found, batch, dataset) == [f'Pictures are in {tmp_path / "shown"}']
    shown = {str(p.relative_to(tmp_path / 'shown')) for p in (tmp_path / 'shown').rglob('*') if p.is_file()}
    assert shown == {'a/0.png', 'b/0.png', '1.jpg', 'c/2.tif.png'}
    assert all(Image.open(tmp_path / 'shown' / name).size[0] >= 20 for name in shown)


def test_rows_have_numbers_for_names(tmp_path):
    dataset = SimpleNamespace(
        metainfo=dict(classes=('x', 'y')), name=lambda i: f'/data/hf, row {i}', labels=[0] * 6)
    batch = dict(inputs=torch.zeros(1, 3, 8, 8, dtype=torch.uint8), index=torch.tensor([5]))
    draw(PicturesHook(str(tmp_path), '/data/hf'), [dict(label=0, scores=torch.tensor([.1, .9]))], batch, dataset)
    assert (tmp_path / 'row_5.png').is_file()


def test_what_cannot_be_drawn_does_not_end_the_test(tmp_path):
    from mmseg.structures import SegDataSample
    found = [SegDataSample(metainfo=dict(img_path=str(tmp_path / f'gone{i}.png'))) for i in range(2)]
    first, last = draw(PicturesHook(str(tmp_path / 'shown'), str(tmp_path)), found, {}, SimpleNamespace(metainfo={}))
    assert 'gone0.png cannot be drawn (FileNotFoundError' in first and last.endswith('2 could not be drawn')


def test_pictures_are_drawn_in_one_process(tmp_path):
    cfg = load_config(ROOT / 'configs/demo/vit_demo_e2e.py')
    outputs.draw(cfg, str(tmp_path / 'shown'))
    cfg.launcher = 'pytorch'
    line = next(line for line in problems(cfg, 'test', 2) if 'rank' in line)
    assert line.startswith('--show-dir: only the first of 2 ranks') and 'tools/test.py, in one process' in line
    cfg.launcher = 'none'
    assert not [line for line in problems(cfg, 'test', 1) if '--show-dir' in line]


def test_show_dir_needs_nothing_of_the_config(tmp_path):
    for more in (dict(), dict(default_hooks=dict(visualization=dict(
            type='DetVisualizationHook', draw=True, score_thr=.7)), custom_hooks=[dict(type='Other')])):
        cfg = config(leaf('/a'), **more)
        outputs.draw(cfg, str(tmp_path / 'shown'))
        hook = cfg.custom_hooks[-1]
        assert hook.type == 'mmincubation.TestPicturesHook' and hook.out_dir == str(tmp_path / 'shown')
        assert hook.images == '/a/img' and hook.get('score_thr') == (.7 if more else None)
    assert cfg.default_hooks.visualization.draw is False and len(cfg.custom_hooks) == 2
