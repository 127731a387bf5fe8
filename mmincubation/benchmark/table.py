"""Format measurements as text, without torch and without a device."""
from __future__ import annotations

import re

ROW = dict(config=str, phase=str, variant=str, parts=list, precision=str, images=int, size=list, flops=int,
           peak_bytes=int, n=int, median=float, min=float, max=float, samples=list)
ENVIRONMENT = ('device', 'cores', 'threads', 'ranks', 'versions', 'commit', 'date', 'command')
TITLES = ['config', 'phase', 'step', 'images', 'img/s', 'ms/step (min .. max)', 'peak GiB', 'GFLOP/s', 'of matrix rate',
          'data wait ms', 'units', 'of fine-tuning: units', 'measured']
NAMES = dict(ours='ours', reference='reference', bfloat16='bf16', float32='fp32')


def valid_result(result: dict) -> dict:
    """Return the result if it has the form of a benchmark's file.

    Raises:
        ValueError: it has not; the message lists what is wrong.
    """
    problems = [f'environment.{key} is missing' for key in ENVIRONMENT if key not in result.get('environment', {})]
    problems += [f'matrix_rate.{key} is missing' for key in ('float32', 'bfloat16') if key not in result['matrix_rate']]
    for i, row in enumerate(result['rows']):
        problems += [f'rows[{i}].{key} is no {kind.__name__}' for key, kind in ROW.items()
                     if not isinstance(row.get(key), kind)]
        problems += [f'rows[{i}].{key} is missing' for key in ('units', 'data_wait_ms') if key not in row]
    for i, ratio in enumerate(result['ratios']):
        problems += [f'ratios[{i}].{key} is missing' for key in ('config', 'phase', 'n', 'median', 'min', 'max')
                     if key not in ratio]
    if problems:
        raise ValueError('; '.join(problems))
    return result


def render(result: dict) -> str:
    """Return the tables of a valid result as markdown."""
    place, rates = result['environment'], result['matrix_rate']
    told = ', '.join(f'{NAMES[key]} {rate["median"] / 1e9:,.0f} GFLOP/s ({rate["side"]} x {rate["side"]})'
                     for key, rate in rates.items())
    lines = [f'{place["device"]}, {place["cores"]} cores, {place["threads"]} threads, {place["ranks"]} ranks, torch '
             f'{place["versions"]["torch"]}, commit {(place["commit"] or "none")[:8]}, {place["date"]}; matrix '
             f'products: {told}. `{place["command"]}`', '']
    lines.append(markdown(TITLES, [_cells(row, result) for row in result['rows']]))
    if result['ratios']:
        lines += ['', markdown(['config', 'phase', 'ours / reference, img/s', 'min .. max', 'turns'], [
            [r['config'], r['phase'], f'**{r["median"]:.2f}**', f'{r["min"]:.2f} .. {r["max"]:.2f}', str(r['n'])]
            for r in result['ratios']])]
    return '\n'.join(lines)


def _cells(row: dict, result: dict) -> list[str]:
    seconds = row['median'] / 1000
    rate = row['flops'] / seconds
    peak = result['matrix_rate'][row['precision']]['median']
    size, wait = 'x'.join(map(str, row['size'])), row['data_wait_ms']
    return [row['config'], row['phase'], f'{NAMES[row["variant"]]}, {NAMES[row["precision"]]}',
            f'{row["images"]} of {size}', f'{row["images"] / seconds:,.2f}',
            f'{row["median"]:,.0f} ({row["min"]:,.0f} .. {row["max"]:,.0f})', f'{row["peak_bytes"] / 2**30:.2f}',
            f'{rate / 1e9:,.0f}', f'{100 * rate / peak:.0f} %', '-' if wait is None else f'{wait:,.0f}',
            '-' if row['units'] is None else str(row['units']), *_beside_finetuning(row, result['rows'])]


def _beside_finetuning(row: dict, rows: list[dict]) -> tuple[str, str]:
    """Return the step's share of fine-tuning's time, as the units predict it and as measured."""
    wanted = row['config'], 'finetune', row['variant']
    finetune = [r for r in rows if (r['config'], r['phase'], r['variant']) == wanted]
    if not finetune:
        return '-', '-'
    return tuple(f'{row[key] / finetune[0][key]:.2f}' for key in ('units', 'median'))


def markdown(titles: list[str], rows: list[list[str]]) -> str:
    """Return a markdown table; columns of words are aligned left, numbers right."""
    ways = [':--' if all(re.match('[A-Za-z]', row[i]) for row in rows) else '--:' for i in range(len(titles))]
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in (titles, ways, *rows))
