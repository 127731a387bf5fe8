"""What does incubation give on photographs, at equal cost? A deep, narrow ViT on Tiny-ImageNet-32, and on parts of it.

Each line of `_lengths` has one cost in block-forwards an image of the training set (100,000):
E2E epochs x 24 = meta x 4 + module x 4 x 9 + finetune x 24 = meta only x 4
                = meta x 4 + finetune x 24 (growth without incubation).
The paper's proportions: a module and fine-tuning have a third of E2E's epochs, the meta model as many as E2E.
"""
work_dir = 'work_dirs/study/tiny'
results = 'results/study/tiny'
_lengths = {  # by cost: E2E; meta, module, finetune of incubation; meta, finetune of growth
    216: (9, (9, 3, 3), (12, 7)),
}
_starts = dict(incub='random', incub_grow='grow', grow_only='grow', stack_only='stack')
_main, _all = ('e2e', 'meta_only', 'grow_only', 'incub_grow'), ('e2e', 'meta_only', 'grow_only', 'incub_grow', 'incub')
_tables = [  # cost, share of the images, seeds, methods
    (216, 1, range(3), _all), (216, .25, range(3), _main), (216, .1, range(3), _main)]


def _run(cost, share, method, seed):
    e2e, incubated, grown = _lengths[cost]
    options = {'experiment.method': method, 'experiment.model': f'ViT-24 w32, {cost:,} blocks an image'}
    if share < 1:
        options |= {'train_dataloader.dataset.fraction': share,
                    'experiment.data': f'Tiny-ImageNet-32, {round(100 * share)} %'}
    if method in ('e2e', 'meta_only'):
        alone = method == 'meta_only'
        options |= {'train_cfg.max_epochs': cost // 4 if alone else e2e, 'model.arch.depth': 4 if alone else 24}
        config = 'e2e'
    else:
        meta, module, finetune = incubated if method.startswith('incub') else (grown[0], 0, grown[1])
        options |= {'train_cfg.start': _starts[method], 'train_cfg.phases.meta.epochs': meta,
                    'train_cfg.phases.module.epochs': module, 'train_cfg.phases.finetune.epochs': finetune}
        config = 'incub'
    return dict(name=f'{round(100 * share)}pct_{cost}_{method}', config=f'studies/configs/tiny_{config}.py',
                options=options, seeds=[seed], seconds=cost * share * 4.2)


runs = [_run(cost, share, method, seed) for cost, share, seeds, methods in _tables
        for seed in seeds for method in methods]
