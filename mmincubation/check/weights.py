"""Check the weights that a run would start from: recognise, hash and load them into shapes, without memory."""
import warnings
from copy import deepcopy

import torch

from mmincubation.checkpoints import CheckpointError, inspect_weights, read_tensors
from mmincubation.checkpoints.hub import local_file
from mmincubation.config.classes import training_names
from mmincubation.models.on_meta import build_for_shapes
from mmincubation.provenance import UNSAID
from mmincubation.recovery.load_from import select_weights
from mmincubation.registry import dicts_in

from .report import Report


def report_weights(cfg, report: Report) -> None:
    """Report what each file is, how much of the model it covers, and which files a run would refuse.

    The config's problems name files that do not exist.
    """
    given = [(place, node) for place, node in dicts_in(cfg.model, 'model')
             if isinstance(node.get('init_cfg'), dict) and str(node['init_cfg'].get('type')).endswith('Pretrained')]
    for place, node in given:
        path = str(node['init_cfg'].get('checkpoint'))
        _guard(f'{place}.init_cfg.checkpoint', path, report, lambda n=node: _load_into_submodule(cfg, n))
    if cfg.get('load_from'):
        _guard('load_from', str(cfg.load_from), report, lambda: _load_into_model(cfg))
    if not given and not cfg.get('load_from'):
        report.say('none: the model begins with random weights')
        for place, _ in (found for found in dicts_in(cfg.model, 'model') if found[1].get('frozen')):
            report.warn(f'{place}.frozen: random weights stay random, which only a control wants; for trained ones '
                        f"give {place}.init_cfg=dict(type='Pretrained', checkpoint=PATH)")


def _guard(place: str, path: str, report: Report, load) -> None:
    if '://' not in path and not local_file(path).exists():
        return report.say(f'{place}: {path} is missing')
    try:
        for line in load():
            report.say(f'{place}: {line}')
    except CheckpointError as error:
        report.problem(place, str(error), 'give another file, or correct model and file as said')


def _load_into_submodule(cfg, node: dict) -> list[str]:
    """Build a backbone (or classifier) on shapes and let it load the file by its own code."""
    from mmengine.registry import MODELS, init_default_scope
    path = str(node['init_cfg']['checkpoint'])
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    with torch.device('meta'):
        module = MODELS.build(deepcopy(dict(node)))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch's, for each tensor, that copying to a shape does nothing
        try:
            module.init_weights()
        except NotImplementedError:  # mmengine's own loading, which copies from shapes
            return [f'{path}: {UNSAID}']
    report = getattr(module, 'load_report', None)
    if report is None:
        return [f'{path}: {UNSAID}']
    if 'arch' not in node:  # timm's, whose file is no plain ViT
        return [f'{path}: sha256 {report["sha256"]}', f'coverage {report["coverage"]}']
    info = inspect_weights(path, node['init_cfg'].get('prefix'))
    return [f'{path}: format {info.format}, {info.keys} keys, {info.parameters:,} parameters, sha256 {info.sha256}',
            *(f'assumed: {line}' for line in info.assumed),
            f'coverage {report["coverage"]}']


def _load_into_model(cfg) -> list[str]:
    """Compare `load_from` with the full model, as CheckpointGuard does in a run."""
    names = training_names(cfg)
    report = select_weights(build_for_shapes(cfg), read_tensors(cfg.load_from)[0], cfg, names and names[0])
    return [f'{report["path"]}: {report["coverage"]}, sha256 {report["sha256"]}']
