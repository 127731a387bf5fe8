"""Which parts of the method matter? Ablations of `incub` and `incub_grow` of studies/digits.py, at its cost.

K is the number of modules, m the number of the meta model's blocks for each. Block-forwards an image of the training
set: meta x K m + module x K x (12 / K + (K - 1) m) + finetune x 12 = 1,080.
"""
work_dir = 'work_dirs/study/digits_ablations'
results = 'results/study/digits_ablations'
_modules = {  # (K, m): meta, module, finetune
    (1, 1): (300, 30, 35), (4, 1): (90, 15, 30), (6, 1): (60, 10, 25), (2, 2): (75, 30, 25)}
_by_epochs = [  # as this recipe asks
    dict(type='LinearLR', start_factor=1e-3, end=1), dict(type='CosineAnnealingLR', eta_min=1e-5, begin=1)]
_variants = dict(
    paper_code={'train_cfg.recipe': 'paper_code', 'param_scheduler': _by_epochs},
    drop_path={'train_cfg.phases.module.drop_path_rate': 0.1, 'train_cfg.phases.finetune.drop_path_rate': 0.1},
    ends={'train_cfg.start': 'ends'})


def _run(name, seed, options):
    return dict(name=name, config='studies/configs/digits_incub.py', seeds=[seed], seconds=270, options={
        'optim_wrapper.optimizer.lr': 8e-3, 'experiment.model': 'ViT-12 w16, 1,080 blocks an image',
        'experiment.method': f'incub {name}', **options})


runs = [run for seed in range(3) for run in (
    *(_run(f'K{modules}_meta{blocks}_{start}', seed, {
        'model.modules': modules, 'model.meta_depth': blocks, 'train_cfg.start': start,
        'train_cfg.phases.meta.epochs': meta,
        'train_cfg.phases.module.epochs': module, 'train_cfg.phases.finetune.epochs': finetune})
      for (modules, blocks), (meta, module, finetune) in _modules.items() for start in ('random', 'grow')),
    *(_run(name, seed, options) for name, options in _variants.items()))]
