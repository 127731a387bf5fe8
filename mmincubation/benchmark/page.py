"""Write the tables of docs/measurements/performance.md: run `python -m mmincubation.benchmark.page`."""
from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from mmincubation.atomic import write_atomic
from mmincubation.vit.spec import ARCHS, Division

from .plan import Cluster, e2e_units, hours, plan
from .table import markdown, render, valid_result
from .units import SCORES, BlockFlops, end_to_end, joint, module, recipe, total

ROOT = Path(__file__).resolve().parents[2]
PAGE, RESULTS = ROOT / 'docs/measurements/performance.md', ROOT / 'results/benchmarks'
SIZES = dict(B='vit_base', L='vit_large', H='vit_huge')
# A100 hours that the paper quotes, by size and epochs of (module, fine-tuning); of E2E.
HOURS = {('L', 100): 890, ('L', 50): 520, ('L', 25): 340, ('H', 100): 2720, ('H', 50): 1490, ('H', 25): 880}
E2E_HOURS = dict(L=1090, H=4790)


def blocks() -> dict[str, str]:
    """Return the content of the page's marked blocks by name."""
    return dict(measured=measured(), units=units(), recipe=recipes(), quoted=quoted(), modules=modules(),
                resolution=resolution(), sent=sent(), plan=plans())


def measured() -> str:
    """Return a pair of tables for each measured device."""
    results = [valid_result(json.loads(path.read_text())) for path in sorted(RESULTS.glob('*.json'))]
    return '\n\n'.join(map(render, results)) or 'Not run.'


def units() -> str:
    """Return a table of the passes through blocks of an image and step, by phase."""
    rows = []
    for size, arch in SIZES.items():
        division = Division.of(ARCHS[arch].depth, 4)
        steps = {'meta': end_to_end(4), **{f'module {i}': module(division, i) for i in range(4)},
                 'all modules, sequential': total(module(division, i) for i in range(4)),
                 'all modules, joint': joint(division),
                 'all modules, public code': total(module(division, i, True) for i in range(4)),
                 'fine-tune, E2E': end_to_end(division.depth)}
        rows += [[f'ViT-{size}', name, *map(str, (u.forward, u.inputs, u.weights)), f'**{u.total}**']
                 for name, u in steps.items()]
    return markdown(['model', 'phase', 'forward', 'input gradients', 'weight gradients', 'units'], rows)


def recipes() -> str:
    """Return a table of the paper's recipe against E2E, in units and in the hours that the paper quotes."""
    rows = []
    for size, epochs in [('B', 100), *HOURS]:
        depth = ARCHS[SIZES[size]].depth
        costs = {mode: recipe(depth, 4, each=epochs, finetune=epochs, mode=mode)
                 for mode in ('sequential', 'joint', 'public')}
        sums = {mode: sum(cost.values()) for mode, cost in costs.items()}
        e2e, own = e2e_units(depth), costs['sequential']
        quoted = HOURS.get((size, epochs))
        rows.append([f'ViT-{size}, {epochs} + {epochs}', *(f'{own[key]:,}' for key in ('meta', 'modules', 'finetune')),
                     f'{sums["sequential"]:,}', f'{sums["joint"]:,}', f'{sums["public"]:,}', f'{e2e:,}',
                     f'{sums["sequential"] / e2e:.2f}', f'{sums["public"] / e2e:.2f}',
                     f'{quoted / E2E_HOURS[size]:.2f}* ({quoted:,} / {E2E_HOURS[size]:,})' if quoted else '-'])
    return markdown(['recipe', 'meta', 'modules', 'fine-tune', 'sum', 'joint', 'public code', 'E2E', 'incub / E2E',
                     'public code / E2E', 'A100 hours*'], rows)


def quoted() -> str:
    """Return a table of the quoted hours for each unit.

    The hours are linear in the epochs: the value at 0 epochs is the cost of the meta model.
    """
    rows = []
    for size, e2e_hours in E2E_HOURS.items():
        depth = ARCHS[SIZES[size]].depth
        cost = recipe(depth, each=1, finetune=1, mode='public')
        # Hours of one more epoch of the modules and of fine-tuning.
        slope = (HOURS[size, 100] - HOURS[size, 25]) / 75
        meta = HOURS[size, 25] - 25 * slope
        rate = e2e_hours / e2e_units(depth)
        middle = meta + 50 * slope
        each = (meta / cost['meta'], slope / (cost['modules'] + cost['finetune']),
                (slope - rate * cost['finetune']) / cost['modules'], rate)
        rows.append([f'ViT-{size}', f'{middle:,.0f} ({HOURS[size, 50]:,}*)',
                     *(f'{1000 * value:.0f}' for value in each)])
    return markdown(['model', '50 + 50 by the line', 'meta', 'modules and fine-tuning',
                     'modules, if fine-tuning costs what E2E does', 'E2E'], rows)


def modules() -> str:
    """Return a table of the cost against the number of modules."""
    rows = []
    for size, arch in SIZES.items():
        depth = ARCHS[arch].depth
        for count in (k for k in range(1, 13) if depth % k == 0):
            cost = sum(recipe(depth, count).values())
            longest = module(Division.of(depth, count), 0).total
            rows.append([f'ViT-{size}', str(count), f'{cost:,}', f'{cost / e2e_units(depth):.2f}', str(longest),
                         f'{100 * recipe(depth, count)["modules"] / cost:.0f} %'])
    return markdown(['model', 'K', 'units of the recipe', 'of E2E', 'step of module 0', 'share of the module phases'],
                    rows)


def resolution() -> str:
    """Return a table of a block's FLOPs against the size of the image."""
    rows = []
    for size, arch in SIZES.items():
        arch = ARCHS[arch]
        small = BlockFlops.of(arch)
        for side in (224, 384 if arch.patch_size == 16 else 392, 40 * arch.patch_size, 64 * arch.patch_size):
            block = BlockFlops.of(replace(arch, img_size=side))
            times = [(b.linear + SCORES * b.attention) for b in (block, small)]
            rows.append([f'ViT-{size}', str(side), f'{(side // arch.patch_size)**2 + 1:,}', f'{times[0] / 1e9:,.2f}',
                         f'{times[0] / times[1]:.1f}', f'{100 * block.attention_share:.0f} %'])
    return markdown(['model', 'image', 'tokens', 'GFLOPs of a block, forward', 'of 224', 'attention'], rows)


def plans() -> str:
    """Return a table of the planned hours by GPUs and mode."""
    rows = []
    for size, arch in SIZES.items():
        for gpus in (8, 64, 256, 1024):
            cluster = Cluster(gpus)
            ways = {mode: plan(cluster, ARCHS[arch], 4, mode) for mode in ('e2e', 'sequential', 'joint', 'parallel')}
            meta, middle, fine = ways['parallel']
            # The share of the phases that cannot run in parallel groups bounds the speed-up.
            serial = (meta.hours + fine.hours) / hours(ways['sequential'])
            rows.append([f'ViT-{size}', f'{gpus:,}', f'{ways["e2e"][0].ranks}', f'{middle.groups} x {middle.ranks}',
                         *(f'{hours(way):,.1f}' for way in ways.values()), f'{1 / serial:.2f}',
                         f'{100 * meta.reduce / meta.step:.0f} / {100 * middle.reduce / middle.step:.0f} / '
                         f'{100 * fine.reduce / fine.step:.0f} %',
                         f'{meta.images_per_node(8):,.0f} / {ways["joint"][1].images_per_node(8):,.0f} / '
                         f'{middle.images_per_node(8):,.0f} / {fine.images_per_node(8):,.0f}'])
    return markdown(['model', 'GPUs', 'used by one batch', 'parallel groups', 'E2E h', 'sequential h', 'joint h',
                     'parallel h', 'Amdahl', 'all-reduce: meta / module / fine-tune', 'img/s a node: meta / joint / '
                     'parallel / fine-tune'], rows)


def sent() -> str:
    """Return a table of the megabytes that cross the network."""
    rows = []
    for size, arch in SIZES.items():
        ways = {mode: plan(Cluster(64), ARCHS[arch], 4, mode) for mode in ('sequential', 'joint', 'parallel')}
        meta, one_by_one, fine = ways['sequential']
        rows.append([f'ViT-{size}', *(f'{phase.size / 1e6:,.0f}' for phase in (
            meta, one_by_one, ways['joint'][1], ways['parallel'][1], fine)), f'{fine.size / 1e6:,.0f}, once'])
    return markdown(['model', 'meta', 'all modules, sequential', 'joint', 'parallel, a group', 'fine-tune, E2E',
                     'exchange of the modules'], rows)


def rewritten(text: str, contents: dict[str, str]) -> str:
    """Return the page with its blocks replaced.

    Raises:
        KeyError: the page has no block of that name.
    """
    for name, content in contents.items():
        begin, end = f'<!-- {name} -->\n', f'<!-- /{name} -->'
        if begin not in text or end not in text:
            raise KeyError(f'{PAGE.name} has no block {name}')
        text = text[:text.index(begin)] + begin + content + '\n' + text[text.index(end):]
    return text


if __name__ == '__main__':
    write_atomic(PAGE, rewritten(PAGE.read_text(), blocks()).encode())
