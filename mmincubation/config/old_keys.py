"""Keys of mmdet 2, mmseg 0.x and mmcv 1, whose configs are still everywhere, with what became of them."""
from collections.abc import Iterator

from mmincubation.registry import dicts_in

SUCCESSORS = {
    'checkpoint_config': 'default_hooks.checkpoint', 'cudnn_benchmark': 'env_cfg.cudnn_benchmark',
    'data': 'train_dataloader, val_dataloader and test_dataloader', 'deterministic': 'randomness.deterministic',
    'dist_params': 'env_cfg.dist_cfg', 'evaluation': 'val_evaluator, train_cfg.val_interval and default_hooks.'
    'checkpoint.save_best', 'fp16': 'the option --amp', 'gpu_ids': 'CUDA_VISIBLE_DEVICES in the environment',
    'img_norm_cfg': 'mean and std of model.data_preprocessor', 'log_config': 'default_hooks.logger and visualizer',
    'lr_config': 'param_scheduler', 'momentum_config': 'param_scheduler', 'optimizer': 'optim_wrapper.optimizer',
    'optimizer_config': 'optim_wrapper (clip_grad)', 'resume_from': 'the option --resume PATH',
    'runner': 'train_cfg', 'seed': 'randomness.seed', 'total_epochs': 'train_cfg.max_epochs',
    'workflow': 'train_cfg and val_cfg',
}


def successor(key: str) -> str | None:
    """What took the place of a top-level key, as the end of a sentence."""
    return f'; of older versions, now {SUCCESSORS[key]}' if key in SUCCESSORS else None


def old_metainfo_problems(cfg: dict) -> Iterator[str]:
    """One line for each key of `metainfo` that mmdet and mmseg do not read: they take the data set's own instead."""
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for place, node in dicts_in(cfg.get(loader), loader):
            metainfo = node.get('metainfo')
            for key in metainfo if isinstance(metainfo, dict) else ():
                if key.lower() in ('classes', 'palette') and key != key.lower():
                    yield f'{place}.metainfo.{key} is not read; write {key.lower()}'
