"""A ten-second classification run on noise with a class-dependent brightness, for tests of loops and tools."""
import importlib.util
from argparse import Namespace

import numpy as np
from mmengine.config import Config
from PIL import Image

from mmincubation.incubation import IncubationModel
from mmincubation.incubation.phase_run import PhaseRun, begin_runs
from mmincubation.incubation.phases import Phase
from tests.helpers.paths import ROOT

ARCH = dict(embed_dim=16, depth=4, num_heads=2, patch_size=4, img_size=8, num_classes=3)


def write_images(root, per_class: int = 8) -> None:
    """`root`/<class>/<i>.png, 8 x 8, three classes."""
    for label in range(3):
        folder = root / str(label)
        folder.mkdir(parents=True)
        for i in range(per_class):
            pixels = np.random.default_rng([label, i]).integers(0, 60, (8, 8, 3)) + 80 * label
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f'{i}.png')


def e2e_config(root, work_dir, epochs: int = 2, drop_path_rate: float = 0., **changes) -> Config:
    """The E2E control on the images under `root`."""
    loader = dict(
        batch_size=6, num_workers=0, collate_fn=dict(type='default_collate'),
        sampler=dict(type='DefaultSampler', shuffle=True),
        dataset=dict(type='mmincubation.ImageFolder', root=str(root)))
    cfg = Config(dict(
        default_scope='mmengine', work_dir=str(work_dir), randomness=dict(seed=5), log_level='WARNING',
        experiment=dict(task='classification', model='toy', method='e2e'),
        model=dict(type='mmincubation.ViTClassifier', arch=ARCH, drop_path_rate=drop_path_rate),
        train_dataloader=loader, val_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=False)),
        val_cfg=dict(), val_evaluator=dict(type='mmincubation.Accuracy'),
        test_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=False)),
        test_cfg=dict(), test_evaluator=dict(type='mmincubation.Accuracy'),
        train_cfg=dict(type='mmincubation.EpochLoop', max_epochs=epochs, val_interval=epochs),
        optim_wrapper=dict(
            type='OptimWrapper', constructor='mmincubation.ViTOptimWrapperConstructor',
            optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.05), clip_grad=dict(max_norm=1.0)),
        param_scheduler=[dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True, eta_min=1e-4)],
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', interval=1)),
        custom_hooks=[dict(type='mmincubation.CostMeter'),
                      dict(type='mmincubation.ResultHook'), dict(type='mmincubation.WeightsHook')],
        log_processor=dict(type='mmincubation.PhaseLogProcessor', by_epoch=True),
        visualizer=dict(type='Visualizer', vis_backends=[])))
    cfg.merge_from_dict(changes)
    return cfg


def incubation_config(root, work_dir, epochs=(1, 1, 1), modules=2, drop_path_rate: float = 0., start: str = 'random',
                      recipe: str = 'clean', **changes) -> Config:
    """An incubation with (meta, module, fine-tune) epochs on the images under `root`."""
    cfg = e2e_config(root, work_dir)
    meta, module, finetune = epochs
    cfg.experiment.method = 'incub'
    cfg.model = dict(type='mmincubation.IncubationModel', arch=ARCH, modules=modules)
    cfg.train_cfg = dict(
        type='mmincubation.IncubationLoop', start=start, recipe=recipe, phases=dict(
            meta=dict(epochs=meta),
            module=dict(epochs=module, drop_path_rate=drop_path_rate),
            finetune=dict(epochs=finetune, drop_path_rate=drop_path_rate)))
    cfg.merge_from_dict(changes)
    return cfg


def arguments(config, *options: str, **given) -> Namespace:
    """What the tools hand to `launch.train` and `launch.test`: their own defaults, `--cfg-options`, and `given`."""
    defaults = {}
    for tool, words in (('train', []), ('test', ['checkpoint'])):
        spec = importlib.util.spec_from_file_location(tool, ROOT / f'tools/{tool}.py')
        spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
        defaults |= vars(module.parse_args([str(config), *words]))
    return Namespace(**defaults | dict(cfg_options=list(options) or None) | given)


def begin_phase(model: IncubationModel, name: str, drop_path_rate: float = 0., recipe: str = 'clean') -> list[PhaseRun]:
    """Let a model train one phase, or in `modules` all modules side by side."""
    names = [f'module_{i}' for i in range(len(model.division))] if name == 'modules' else [name]
    return begin_runs(model, [Phase(n, 1, drop_path_rate) for n in names], recipe, name == 'modules')
