"""Write the tables of docs/measurements/gpu.md from results/gpu: python bench/gpu_page.py [--estimate].

`--estimate` first adds the estimate of memory (tools/check.py's) to rows that lack it, which takes minutes.
"""
import argparse
import json
import logging
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmincubation.benchmark.page import ROOT, rewritten
from mmincubation.benchmark.table import markdown

PAGE = ROOT / 'docs/measurements/gpu.md'
STEPS, DEPTH = (ROOT / f'results/gpu/h100_{kind}.jsonl' for kind in ('steps', 'depth'))
GIB = 2**30


def read(path: Path) -> list[dict]:
    """Return the rows of a file; each knows the matrix rates of its own run."""
    rows, rates = [], {}
    for row in map(json.loads, path.read_text().splitlines()):
        rates = row.pop('matrix_rate', rates)
        rows.append(row | dict(rates=rates))
    return rows


def table(head: str, rows: list[list]) -> str:
    """Return a markdown table; `head` names the columns."""
    return markdown(head.split(', '), [[str(cell) for cell in row] for row in rows])


def steps() -> str:
    """Return the table of training steps."""
    lines = []
    for row in (row for row in read(STEPS) if 'median' in row):
        ours, seconds = row['variant'] == 'ours', row['median'] / 1000
        kind = ('compiled' if row['compiled'] else 'eager') if ours else 'reference, fp32'
        share = row['flops'] / seconds / row['rates'][row['precision']]['median']
        estimate, peak = row.get('estimate_bytes'), row['peak_bytes']
        lines.append([
            name(row), row['phase'], kind, row['images'], f'{row["images"] / seconds:,.0f}',
            f'{row["median"]:.1f} ({row["min"]:.1f} .. {row["max"]:.1f})', f'{100 * share:.0f} %',
            f'{peak / GIB:.2f}', f'{100 * (estimate / peak - 1):+.1f} %' if estimate else '-'])
    head = 'config, phase, step, images, img/s, ms/step (min .. max), of matrix rate, peak GiB, estimate'
    return table(head, lines)


def syncs() -> str:
    """Return the table of host syncs of a step, as CUDA's debug mode sees them."""
    rows = [row for row in read(STEPS) if 'syncs' in row]
    return table('config, phase, the most frequent places, syncs', [
        [name(row), row['phase'], ', '.join(f'{place} {n}' for place, n in list(row['syncs'].items())[:3]) or 'none',
         sum(row['syncs'].values())] for row in rows])


def kernels() -> str:
    """Return the first kernels of each profile."""
    rows = [row for row in read(STEPS) if 'kernels' in row]
    return table('config, phase, kernel, calls, ms, share', [
        [name(row), row['phase'], f'`{short(kernel["name"])}`', kernel['calls'], f'{kernel["ms"]:.2f}',
         f'{100 * kernel["share"]:.1f} %'] for row in rows for kernel in row['kernels'][:6]])


def depth() -> str:
    """Return the last validation of each depth."""
    last = {row['depth']: row for row in map(json.loads, DEPTH.read_text().splitlines())}
    return table('blocks, top-1, seconds, images', [
        [n, f'{row["top1"]:.1f}', f'{row["seconds"]:.0f}', f'{row["images"]:,}'] for n, row in sorted(last.items())])


def name(row: dict) -> str:
    """Return the name of a row's config."""
    return Path(row['config']).stem


def short(kernel: str) -> str:
    """Return a kernel's name without what all names share."""
    for word in ('void ', 'at::native::', '(anonymous namespace)::', 'vision::ops::'):
        kernel = kernel.replace(word, '')
    return kernel.split('(')[0][:60].replace('|', '/')


def add_estimates() -> None:
    """Add the estimate to the rows of eager steps."""
    from mmincubation.check.memory import estimate
    from mmincubation.config.load import load_config
    warnings.simplefilter('ignore')
    logging.disable(logging.INFO)
    rows = [json.loads(line) for line in STEPS.read_text().splitlines()]
    for row in rows:
        if 'peak_bytes' in row and row['variant'] == 'ours' and not row['compiled'] and 'estimate_bytes' not in row:
            cfg = load_config(row['config'])
            (cfg.model.get('backbone') or {}).pop('init_cfg', None)
            peaks = {peak.phase: peak.peak for peak in estimate(cfg)}
            row.update({'estimate_bytes': peaks[row['phase']]} if row['phase'] in peaks else {})
    STEPS.write_text(''.join(json.dumps(row) + '\n' for row in rows))


def blocks() -> dict[str, str]:
    """Return the marked blocks of the page by name."""
    return dict(steps=steps(), syncs=syncs(), kernels=kernels(), depth=depth())


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--estimate', action='store_true')
    if parser.parse_args().estimate:
        add_estimates()
    PAGE.write_text(rewritten(PAGE.read_text(), blocks()))
