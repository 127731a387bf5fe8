"""Does incubation pay where depth pays? Very narrow ViTs on the demo's digits, all methods at equal cost.

Here a meta model of two blocks stops rising below what twelve blocks reach. Each line of `_lengths` has one cost in
block-forwards an image of the training set (8,000):
E2E epochs x depth = meta x 2 + module x 2 x (depth / 2 + 1) + finetune x depth = meta only x 2
                   = meta x 2 + finetune x depth (growth without incubation).
The paper's proportions: a module and fine-tuning have a third of E2E's epochs; the meta model has what is left.
"""
work_dir = 'work_dirs/study/digits'
results = 'results/study/digits'
_seeds = {  # by (depth, cost)
    (12, 1080): range(5), (12, 360): range(5), (6, 1080): range(3), (24, 1080): range(5), (12, 3240): range(3)}
_lengths = {  # by (depth, cost): E2E; meta, module, finetune of incubation; meta, finetune of growth
    (12, 360): (30, (50, 10, 10), (54, 21)),
    (12, 1080): (90, (150, 30, 30), (150, 65)),
    (12, 3240): (270, (450, 90, 90), (450, 195)),
    (6, 1080): (180, (120, 60, 60), (120, 140)),
    (24, 1080): (45, (140, 16, 16), (156, 32)),
}
_starts = dict(incub='random', incub_grow='grow', grow_only='grow', stack_only='stack')


def _run(depth, cost, method, seed):
    e2e, incubated, grown = _lengths[depth, cost]
    options = {'experiment.method': method, 'experiment.model': f'ViT-{depth} w16, {cost:,} blocks an image',
               'model.arch.depth': depth}
    if method in ('e2e', 'meta_only'):
        alone = method == 'meta_only'
        options |= {'train_cfg.max_epochs': cost // 2 if alone else e2e, 'model.arch.depth': 2 if alone else depth}
        config = 'e2e'
    else:
        meta, module, finetune = incubated if method.startswith('incub') else (grown[0], 0, grown[1])
        options |= {'train_cfg.start': _starts[method], 'train_cfg.phases.meta.epochs': meta,
                    'train_cfg.phases.module.epochs': module, 'train_cfg.phases.finetune.epochs': finetune}
        config = 'incub'
    return dict(name=f'd{depth}_{cost}_{method}', config=f'studies/configs/digits_{config}.py', options=options,
                seeds=[seed], seconds=cost / 4)


runs = [_run(depth, cost, method, seed)
        for (depth, cost), seeds in _seeds.items() for seed in seeds
        for method in ('e2e', 'meta_only', 'grow_only', 'incub_grow', 'incub', 'stack_only')
        if (depth == 12 or method != 'meta_only')  # whose two blocks are the same at each depth
        and (method not in ('incub', 'stack_only') or cost == 1080 and depth > 6)]
