"""What does incubation give on photographs, at equal cost? A deep, narrow ViT on Tiny-ImageNet-32, and on parts of it.

All have one cost in block-forwards an image of the training set (100,000):
E2E epochs x 24 = meta x 4 + module x 4 x 9 + finetune x 24 = meta only x 4
                = meta x 4 + finetune x 24 (growth without incubation).
The paper's proportions: a module and fine-tuning have a third of E2E's epochs, the meta model as many as E2E.
"""
work_dir = 'work_dirs/study/tiny'
results = 'results/study/tiny'
_cost = 216
_e2e, _incubated, _grown = 9, (9, 3, 3), (12, 7)  # epochs: E2E; meta, module, finetune; meta, finetune of growth
_starts = dict(incub='random', grow_only='grow')
_methods = ('e2e', 'meta_only', 'grow_only', 'incub')


def _run(share, method, seed):
    options = {'experiment.method': method, 'experiment.model': f'ViT-24 w32, {_cost:,} blocks an image'}
    if share < 1:
        warmup = round(300 * share)  # in iterations, the same share of the epochs
        options |= {'train_dataloader.dataset.fraction': share,
                    'param_scheduler.0.end': warmup, 'param_scheduler.1.begin': warmup,
                    'experiment.data': f'Tiny-ImageNet-32, {round(100 * share)} %'}
    if method in ('e2e', 'meta_only'):
        alone = method == 'meta_only'
        options |= {'train_cfg.max_epochs': _cost // 4 if alone else _e2e, 'model.arch.depth': 4 if alone else 24}
        config = 'e2e'
    else:
        meta, module, finetune = _incubated if method == 'incub' else (_grown[0], 0, _grown[1])
        options |= {'train_cfg.start': _starts[method], 'train_cfg.phases.meta.epochs': meta,
                    'train_cfg.phases.module.epochs': module, 'train_cfg.phases.finetune.epochs': finetune}
        config = 'incub'
    return dict(name=f'{round(100 * share)}pct_{_cost}_{method}', config=f'studies/configs/tiny_{config}.py',
                options=options, seeds=[seed], seconds=_cost * share * 4.2)


runs = [_run(share, method, seed) for share in (1, .25, .1) for seed in range(3) for method in _methods]
