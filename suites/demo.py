"""The demo, as `make demo` runs it: classifiers, then detectors and segmentors that begin with their weights.

`seconds` are of one run alone on one core of the machine that the README names.
"""
work_dir = 'work_dirs'


def _run(name, seconds, needs='data'):
    return dict(config=f'configs/demo/{name}.py', seconds=seconds, needs=needs)


runs = [
    dict(name='data', command=['python', 'tools/make_demo_data.py'], seconds=20),
    _run('vit_demo_incub_grow', 200),
    _run('vit_demo_meta_only', 350),
    _run('vit_demo_grow_only', 230),
    _run('vit_demo_e2e', 180),
    _run('vit_demo_incub', 200),
    _run('vit_demo_stack_only', 230),
    *[_run(f'{head}_vit_demo_{method}', seconds, 'data' if method == 'scratch' else f'vit_demo_{method}')
      for head, seconds in (('maskrcnn', 110), ('upernet', 150))
      for method in ('incub_grow', 'grow_only', 'e2e', 'scratch')],
]
