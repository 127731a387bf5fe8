"""Does incubation pay where depth pays? Very narrow ViTs on the demo's digits, all methods at equal cost.

Two blocks alone end two points below twelve. Each line of `_lengths` has one cost in block-forwards an image of the
training set (8,000):
E2E epochs x depth = meta x 2 + module x 2 x (depth / 2 + 1) + finetune x depth = meta only x 2
                   = meta x 2 + finetune x depth (growth without incubation).
The paper's proportions: a module and fine-tuning have a third of E2E's epochs; the meta model has what is left.
"""
work_dir = 'work_dirs/study/digits'
results = 'results/study/digits'
_lengths = {  # by (depth, cost): E2E; meta, module, finetune of incubation; meta, finetune of growth
    (12, 360): (30, (50, 10, 10), (54, 21)),
    (12, 1080): (90, (150, 30, 30), (150, 65)),
    (12, 3240): (270, (450, 90, 90), (450, 195)),
    (6, 1080): (180, (120, 60, 60), (120, 140)),
    (24, 1080): (45, (140, 16, 16), (156, 32)),
}
_starts = dict(incub='random', incub_grow='grow', grow_only='grow', stack_only='stack')


def _run(depth, cost, lr, method, seed):
    e2e, incubated, grown = _lengths[depth, cost]
    options = {'experiment.method': method, 'experiment.model': f'ViT-{depth} w16, {cost:,} blocks an image',
               'model.arch.depth': depth, 'optim_wrapper.optimizer.lr': lr}
    if method in ('e2e', 'meta_only'):
        alone = method == 'meta_only'
        options |= {'train_cfg.max_epochs': cost // 2 if alone else e2e, 'model.arch.depth': 2 if alone else depth}
        config = 'e2e'
    else:
        meta, module, finetune = incubated if method.startswith('incub') else (grown[0], 0, grown[1])
        options |= {'train_cfg.start': _starts[method], 'train_cfg.phases.meta.epochs': meta,
                    'train_cfg.phases.module.epochs': module, 'train_cfg.phases.finetune.epochs': finetune}
        config = 'incub'
    table = f'd{depth}_{cost}' + ('' if lr == 2e-3 else f'_lr{lr}')
    return dict(name=f'{table}_{method}', config=f'studies/configs/digits_{config}.py', options=options,
                seeds=[seed], seconds=cost / 4)

_deep = ('e2e', 'grow_only', 'incub_grow')
_tables = [  # depth, cost, learning rate, seeds, methods; `meta_only` is the same two blocks at each depth
    (12, 1080, 2e-3, range(5), ('meta_only', *_deep, 'incub', 'stack_only')),
    (12, 1080, 4e-3, range(5), ('meta_only', )),
    (12, 360, 2e-3, range(5), ('meta_only', *_deep)),
    (6, 1080, 2e-3, range(3), _deep),
    (24, 1080, 2e-3, range(3), _deep),
    (24, 1080, 8e-3, range(5), (*_deep, 'incub', 'stack_only')),  # E2E's best rate there
    (12, 1080, 8e-3, range(5), ('meta_only', *_deep, 'incub', 'stack_only')),  # and here
    (24, 1080, 4e-3, range(5), _deep),
    (24, 1080, 4e-3, range(3), ('incub', 'stack_only')),
    (12, 3240, 8e-3, range(3), ('meta_only', *_deep))]
runs = [_run(depth, cost, lr, method, seed) for depth, cost, lr, seeds, methods in _tables
        for seed in seeds for method in methods]
