"""Semantic segmentation: settings of data sets, heads and metrics that must fit one another."""
import re
from collections.abc import Iterator

from mmengine.config import Config

from mmincubation.datasets.classes import class_of
from mmincubation.datasets.labels import IGNORED
from mmincubation.registry import dicts_in, kind_of

from .classes import data_sets
from .sections import kinds_of
from .signatures import resolve, setting, several


def label_problems(cfg: Config, mode: str) -> Iterator[str]:
    """All of them; `mode` is `'train'` or `'test'`."""
    scope = cfg.get('default_scope') or 'mmengine'
    kinds = kinds_of(cfg, mode)
    found = [(kind, place, node) for kind in kinds for place, node in data_sets(cfg, kind)
             if setting(node, 'reduce_zero_label', scope) is not None]
    for kind, place, node in found:
        yield from _class_problems(place, node, scope, kind)
        yield from _truth_problems(cfg, place, node, kind)
        if kind != 'train':
            yield from _order_problems(place, node)
    yield from zero_problems(cfg, scope)
    if found:
        yield from ignored_problems(cfg, kinds, found, scope)
    if mode == 'train':
        yield from weight_problems(cfg, scope)


def zero_problems(cfg: Config, scope: str) -> Iterator[str]:
    """Data sets of one config that number their classes from 1 (`reduce_zero_label`) and from 0."""
    flags = {place: flag for kind in ('train', 'val', 'test') for place, node in data_sets(cfg, kind)
             if (flag := setting(node, 'reduce_zero_label', scope)) is not None}
    if len(set(flags.values())) > 1:
        texts = [f'{flag} in {", ".join(place for place, f in flags.items() if f == flag)}' for flag in (True, False)]
        yield f'reduce_zero_label is {"; ".join(texts)}: class numbers would differ by one; make them equal'


def _class_problems(place: str, node: dict, scope: str, kind: str) -> Iterator[str]:
    """Names and colours that mmseg's data sets assert, or that a metric cannot do without."""
    own, given = getattr(class_of(node, scope), 'METAINFO', {}), node.get('metainfo') or {}
    names, palette = ({**own, **given}.get(key) or () for key in ('classes', 'palette'))
    known = own.get('classes')
    if not isinstance(names, list | tuple):
        return
    strange = [name for name in names if known and name not in known]
    if strange:
        yield f'{place}.metainfo.classes: {strange[0]!r} is none of the {len(known)} classes of {node["type"]}; for ' \
              'other classes give type=\'BaseSegDataset\''
    elif palette and len(palette) != len(names) and (not known or list(names) == list(known)):
        yield f'{place}.metainfo.palette has {len(palette)} colours, its classes are {len(names)}: give one for ' \
              'each, or leave out those of a base config by metainfo=dict(_delete_=True, classes=...)'
    if kind != 'train' and not names:
        yield f'{place} names no classes: add metainfo=dict(classes=(...)), in the order of their numbers'


def _truth_problems(cfg: Config, place: str, node: dict, kind: str) -> Iterator[str]:
    """Labels that are to be read, or to be scored, and that the data set does not have."""
    reads = any(kind_of(step) == 'LoadAnnotations' for _, step in
                dicts_in(node.get('pipeline'), 'pipeline'))
    prefix = node.get('data_prefix')
    named = not isinstance(prefix, dict) or prefix.get('seg_map_path') is not None
    evaluators = cfg.get(f'{kind}_evaluator') or {}
    metrics = [metric for evaluator in several(evaluators) for metric in evaluator.get('metrics', [evaluator])]
    scores = kind == 'train' or not all(_writes(metric) for metric in metrics)
    remedy = '; to write predictions alone take --format-only' * (kind == 'test')
    if reads and not named:
        yield f'{place}.data_prefix has no seg_map_path, the folder of the label pictures that its pipeline reads: ' \
              f'add it{remedy}'
    elif scores and not reads and _is_complete(node):
        yield f'{place}.pipeline has no LoadAnnotations, so there is no truth to learn or to score ' \
              f'by: add it{remedy}'


def _writes(metric: dict) -> bool:
    """Whether a metric writes predictions and needs no truth, as tools/test.py --format-only and --out set them."""
    return bool(metric.get('format_only')) or kind_of(metric) in (
        'LabelPictures', 'DumpResults', 'DumpDetResults')


def _order_problems(place: str, node: dict) -> Iterator[str]:
    """Predictions are compared at the size of the image file, so labels must not be resized."""
    steps = [kind_of(step) for step in node.get('pipeline') or () if isinstance(step, dict)]
    if 'LoadAnnotations' in steps and 'Resize' in steps[steps.index('LoadAnnotations'):]:
        yield f'{place}.pipeline resizes the labels, predictions are scored at the size of the image: put ' \
              'LoadAnnotations after Resize'


def _is_complete(node: dict) -> bool:
    """Whether a data set's own pipeline makes the model's samples; else a wrapper goes on with it."""
    return any('Pack' in str(step.get('type')) for _, step in dicts_in(node.get('pipeline'), 'pipeline'))


def ignored_problems(cfg: Config, kinds: list[str], found: list[tuple], scope: str) -> Iterator[str]:
    """Places that take different values for the label that counts nowhere."""
    values = {}
    for _, place, node in found:
        values[f'{place}.ignore_index'] = setting(node, 'ignore_index', scope)
        if setting(node, 'reduce_zero_label', scope):
            values[f'{place}.reduce_zero_label'] = IGNORED  # mmseg writes this into the label map
    for kind in kinds:
        for place, node in dicts_in(cfg.get(f'{kind}_evaluator'), f'{kind}_evaluator'):
            values[f'{place}.ignore_index'] = setting(node, 'ignore_index', scope)
    if 'train' in kinds:
        for place, node in dicts_in(cfg.get('model'), 'model'):
            if re.fullmatch(r'model\.(decode|auxiliary)_head(\.\d+)?', place):
                values[f'{place}.ignore_index'] = setting(node, 'ignore_index', scope)
        for key, top in (('model.data_preprocessor', cfg.model.get('data_preprocessor')),
                         ('train_dataloader', cfg.get('train_dataloader'))):
            values |= dict(_paddings(top, key, scope))
    values = {place: value for place, value in values.items() if isinstance(value, int)}
    if len(different := sorted({*values.values()})) > 1:
        texts = [f'{value} in {", ".join(place for place, v in values.items() if v == value)}' for value in different]
        yield f'ignored labels: {"; ".join(texts)}; make them equal'


def _paddings(top, key: str, scope: str) -> Iterator[tuple[str, int]]:
    """Yield (place, value) of what pads label maps."""
    for place, node in dicts_in(top, key):
        yield f'{place}.seg_pad_val', setting(node, 'seg_pad_val', scope)
        pads = setting(node, 'pad_val', scope) if kind_of(node) == 'Pad' else None
        if pads is not None:
            yield f'{place}.pad_val.seg', pads.get('seg', IGNORED) if isinstance(pads, dict) else IGNORED


def weight_problems(cfg: Config, scope: str) -> Iterator[str]:
    """Weights of classes in the losses of a segmentor that are not one for each class."""
    for place, head in dicts_in(cfg.get('model'), 'model'):
        count = setting(head, 'num_classes', scope) if _has_plain_loss(head, scope) else None
        for at, loss in dicts_in(head.get('loss_decode'), f'{place}.loss_decode') if isinstance(count, int) else ():
            weights = loss.get('class_weight')
            if isinstance(weights, list | tuple) and len(weights) != count:
                yield f'{at}.class_weight has {len(weights)} weights, {place}.num_classes is {count}: give one for ' \
                      'each class'


def _has_plain_loss(head: dict, scope: str) -> bool:
    """Whether a head compares scores and labels pixel by pixel, as mmseg's base class does; others add a class."""
    if 'loss_decode' not in head or not isinstance(head.get('type'), str):
        return False
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead
    return any(getattr(cls, 'loss_by_feat', None) is BaseDecodeHead.loss_by_feat
               for _, cls in resolve(head['type'], head.get('_scope_') or scope))
