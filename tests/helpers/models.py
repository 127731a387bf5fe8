"""A small model with random weights for each task, with its config and its data, as a run leaves them."""
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import MODELS, DefaultScope

from mmincubation.config.classes import training_names
from tests.helpers.paths import ROOT
from tests.helpers.shrink import shrink
from tests.helpers.synthetic_ade import write_ade
from tests.helpers.synthetic_coco import write_coco
from tests.helpers.toy import e2e_config, write_images

TASKS = ('classification', 'detection', 'segmentation')


def small_config(task: str, folder: Path, images: Path | None = None) -> Config:
    """The toy's classifier, or a detector or segmentor of the paper in small, whose data are written to `folder`."""
    if task == 'classification':
        if images is None:
            write_images(images := folder / 'images')
        return e2e_config(images, folder / 'work')
    if task == 'detection':
        write_coco(folder / 'coco')
        return shrink(Config.fromfile(ROOT / 'configs/coco/maskrcnn_vit_b_e2e.py'), folder)
    write_ade(folder / 'ade/ADEChallengeData2016')
    return shrink(Config.fromfile(ROOT / 'configs/ade20k/upernet_vit_b_e2e.py'), folder)


def small_model(task: str, folder: Path, images: Path | None = None) -> tuple[Path, Path]:
    """A config and a checkpoint of its model, with what a run stores beside the weights."""
    cfg = small_config(task, folder, images)
    cfg.dump(folder / 'config.py')
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    hub = MessageHub(task)
    hub.update_scalar('train/loss', 1.)
    torch.save(dict(meta=dict(epoch=1, iter=1, cfg=cfg.pretty_text, dataset_meta=meta_of(cfg)),
                    state_dict=model.state_dict(), message_hub=hub.state_dict(),
                    optimizer=dict(state={}, param_groups=[])), folder / 'epoch_1.pth')
    return folder / 'config.py', folder / 'epoch_1.pth'


def meta_of(cfg: Config) -> dict:
    """The names and colours of the training data's classes."""
    names, _ = training_names(cfg)
    return dict(classes=names, palette=[[i % 256, 7, 9] for i in range(len(names))])
