"""Settings of semantic segmentation that do not fit one another are named with their places."""
import pytest
from mmengine.config import Config

from mmincubation.config.labels import label_problems

LOAD, READ, PACK = (dict(type=t) for t in ('LoadImageFromFile', 'LoadAnnotations', 'PackSegInputs'))
CLASSES = dict(classes=('ground', 'cat'))


def config(**changes) -> Config:
    """A segmentor of two classes; `changes` have dotted keys."""
    data = dict(type='BaseSegDataset', metainfo=CLASSES, data_prefix=dict(img_path='img', seg_map_path='seg'),
                pipeline=[LOAD, READ, PACK])
    head = dict(type='FCNHead', num_classes=2, loss_decode=dict(type='CrossEntropyLoss'))
    cfg = Config(dict(
        default_scope='mmseg', val_cfg={}, model=dict(
            data_preprocessor=dict(type='SegDataPreProcessor'), decode_head=head, auxiliary_head=[head]),
        **{f'{kind}_dataloader': dict(dataset=data) for kind in ('train', 'val', 'test')},
        **{f'{kind}_evaluator': dict(type='IoUMetric') for kind in ('val', 'test')}))
    cfg.merge_from_dict({key.replace('__', '.'): value for key, value in changes.items()})
    return cfg


def test_a_right_config_has_no_problem():
    for mode in ('train', 'test'):
        assert not [*label_problems(config(), mode)]


IGNORED = dict(
    model__data_preprocessor__seg_pad_val=250, model__decode_head__ignore_index=250,
    model__auxiliary_head=[dict(type='FCNHead', num_classes=2, ignore_index=250)],
    train_dataloader__dataset__ignore_index=250, val_dataloader__dataset__ignore_index=250,
    val_evaluator__ignore_index=250)


def test_one_ignored_label_everywhere_is_right():
    assert not [*label_problems(config(**IGNORED), 'train')]


@pytest.mark.parametrize('left', IGNORED)
def test_a_place_that_keeps_255_is_named(left):
    cfg = config(**{key: value for key, value in IGNORED.items() if key != left})
    place = left.replace('__', '.') + ('.0.ignore_index' if left.endswith('head') else '')
    [said] = label_problems(cfg, 'train')
    assert said.startswith('ignored labels: 250 in ') and said.endswith(f'255 in {place}; make them equal')


@pytest.mark.parametrize('changes, place', [
    (dict(train_dataloader__dataset__reduce_zero_label=True), 'train_dataloader.dataset.reduce_zero_label'),
    (dict(train_dataloader__dataset__pipeline=[LOAD, READ, dict(type='RandomRotate', prob=1., degree=9.), PACK]),
     'train_dataloader.dataset.pipeline.2.seg_pad_val'),
    (dict(train_dataloader__dataset__pipeline=[LOAD, READ, dict(type='Pad', size=(9, 9)), PACK]),
     'train_dataloader.dataset.pipeline.2.pad_val.seg')])
def test_what_writes_255_into_labels_is_named(changes, place):
    [said] = [line for line in label_problems(config(**IGNORED, **changes), 'train') if line.startswith('ignored')]
    assert said.endswith(f'255 in {place}; make them equal')


def test_a_base_configs_colours_over_own_classes():
    palette = [[0, 0, 0]] * 11
    said = [*label_problems(config(train_dataloader__dataset__metainfo=dict(CLASSES, palette=palette)), 'train')]
    assert said == ['train_dataloader.dataset.metainfo.palette has 11 colours, its classes are 2: give one for each, '
                    'or leave out those of a base config by metainfo=dict(_delete_=True, classes=...)']
    fitting = config(train_dataloader__dataset__metainfo=dict(CLASSES, palette=palette[:2]))
    assert not [*label_problems(fitting, 'train')]


def test_own_classes_in_a_data_set_that_has_its_own():
    [said] = label_problems(config(train_dataloader__dataset__type='ADE20KDataset',
                                   train_dataloader__dataset__reduce_zero_label=False), 'train')
    assert said.startswith("train_dataloader.dataset.metainfo.classes: 'ground' is none of the 150 classes of ADE20K")
    cfg = config(train_dataloader__dataset__type='ADE20KDataset', train_dataloader__dataset__reduce_zero_label=False,
                 train_dataloader__dataset__metainfo=dict(classes=('wall', 'sky')))
    assert not [*label_problems(cfg, 'train')]  # a subset, which mmseg numbers anew


def test_data_without_labels():
    cfg = config()
    cfg.test_dataloader.dataset.data_prefix.pop('seg_map_path')
    [said] = label_problems(cfg, 'test')
    assert said.startswith('test_dataloader.dataset.data_prefix has no seg_map_path') and '--format-only' in said
    cfg.test_dataloader.dataset.pipeline = [LOAD, PACK]
    [said] = label_problems(cfg, 'test')
    assert 'no truth to learn or to score by' in said and '--format-only' in said
    cfg.test_evaluator.update(format_only=True, output_dir='out')
    assert not [*label_problems(cfg, 'test')]
    assert not [*label_problems(cfg, 'train')]


def test_a_metric_needs_the_names_of_classes():
    cfg = config()
    cfg.val_dataloader.dataset.pop('metainfo')
    [said] = label_problems(cfg, 'train')
    assert said.startswith('val_dataloader.dataset names no classes: add metainfo=dict(classes=(...))')


def test_weights_of_classes_are_one_for_each():
    loss = dict(type='CrossEntropyLoss', class_weight=[1., 2., 3.])
    expected = 'model.decode_head.loss_decode{}.class_weight has 3 weights, model.decode_head.num_classes is 2: give ' \
               'one for each class'
    for given, place in ((loss, ''), ([loss], '.0')):
        cfg = config()
        cfg.model.decode_head.loss_decode = given
        assert [*label_problems(cfg, 'train')] == [expected.format(place)]
    cfg.model.decode_head.loss_decode[0].class_weight = [1., 2.]
    assert not [*label_problems(cfg, 'train')]


@pytest.mark.parametrize('order, wrong', [
    (('LoadImageFromFile', 'LoadAnnotations', 'Resize', 'PackSegInputs'), True),
    (('LoadImageFromFile', 'Resize', 'LoadAnnotations', 'PackSegInputs'), False)])
def test_labels_that_a_validation_would_resize(order, wrong):
    steps = [dict(type=name, scale=(8, 8)) if name == 'Resize' else dict(type=name) for name in order]
    data = dict(type='BaseSegDataset', metainfo=dict(classes=('a', 'b')), pipeline=steps,
                data_prefix=dict(img_path='', seg_map_path=''))
    cfg = Config(dict(default_scope='mmseg', model=dict(), val_cfg=dict(), train_dataloader=dict(dataset=data),
                      val_dataloader=dict(dataset=data)))
    found = [line for line in label_problems(cfg, 'train') if 'resizes the labels' in line]
    assert found == ['val_dataloader.dataset.pipeline resizes the labels, predictions are scored at the size of the '
                     'image: put LoadAnnotations after Resize'] * wrong


def test_zero_labels_are_the_same_everywhere():
    found = list(label_problems(config(val_dataloader__dataset__reduce_zero_label=True), 'train'))
    assert any('class numbers would differ by one' in line for line in found), found


@pytest.mark.parametrize('kind', ['mmincubation.LabelPictures', 'DumpResults'])
def test_metrics_that_only_write_need_no_truth(kind):
    cfg = config()
    cfg.test_dataloader.dataset.pipeline = [LOAD, PACK]
    cfg.test_evaluator = [dict(type=kind)]
    assert not [line for line in label_problems(cfg, 'test') if 'no truth' in line]
    cfg.test_evaluator = [dict(type=kind), dict(type='IoUMetric')]
    assert [line for line in label_problems(cfg, 'test') if 'no truth' in line]
