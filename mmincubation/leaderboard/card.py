"""Write a model card, and an evaluation result as the Hugging Face hub reads it, from one result."""
from __future__ import annotations

import hashlib
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import yaml

from mmincubation.atomic import write_atomic
from mmincubation.errors import clean
from mmincubation.result import METRICS, PROBES, Result, read_result

from .collect import Run
from .details import number, phase_cells
from .render import escaped, markdown_table
from .rows import unmeasured

SEAL = 'written by tools/card.py; sha256 of all lines above: '
TASKS = {'classification': 'image-classification', 'detection': 'object-detection',
         'segmentation': 'image-segmentation'}
METRIC_TYPES = {'top-1': 'accuracy', 'box AP': 'mAP', 'mask AP': 'mAP', 'mIoU': 'mean_iou', 'aAcc': 'accuracy'}
WHOLE = ('model', 'finetune_last', 'e2e_last', 'assembled')  # weight files of a whole model, the best one first
SETTINGS = {
    'batch': 'images per step', 'optim_wrapper.optimizer.type': 'optimiser', 'optim_wrapper.optimizer.lr':
    'learning rate', 'optim_wrapper.optimizer.weight_decay': 'weight decay', 'train_cfg.max_epochs': 'epochs',
    'train_cfg.max_iters': 'steps', 'train_cfg.start': 'start of the modules', 'train_cfg.mode': 'mode',
    'model.drop_path_rate': 'drop path', 'model.backbone.drop_path_rate': 'drop path'}


class CardError(ValueError):
    """A card cannot be made or written; the message names the culprit and the remedy."""


def result_path(run: Path) -> Path:
    """Return the result file of a run, given by its folder or by the file itself."""
    return run / 'result.json' if run.is_dir() else run


def make_files(run: Path, dataset_id: str | None = None, task_id: str | None = None,
               published: dict | None = None) -> dict[str, str]:
    """Return the files of a card by name: `README.md`, and with both ids `.eval_results/<data>.yaml`.

    `published` has the `config` and the `outputs` of the folder that the card is for, if that is not the run's.

    Raises:
        ResultError: the result cannot be read.
        CardError: the run is a probe; an id is missing or no id of the hub; or the main metric was not measured.
    """
    path = result_path(run)
    run = Run(path, read_result(path))
    if run.task in PROBES:
        raise CardError(f'{path}: a probe ({run.task}) trains no model; give the run that wrote the weights')
    files = {'README.md': sealed(readme(run, dataset_id, published), '<!-- {} -->')}
    if dataset_id or task_id:
        text = yaml.safe_dump(eval_results(run, dataset_id, task_id), sort_keys=False, allow_unicode=True)
        files[f'.eval_results/{slug(run.data_name)}.yaml'] = sealed(text, '# {}')
    return files


def write_files(files: dict[str, str], out: Path) -> list[Path]:
    """Write the files below `out`, all or none, and return their paths.

    Raises:
        CardError: one is there already, and is not as this module wrote it.
    """
    for name in files:
        path = out / name
        if path.exists() and not untouched(path.read_bytes().decode(errors='replace')):
            raise CardError(f'{path} was written or changed by somebody else; move it away, or give another --out')
    for name, text in files.items():
        write_atomic(out / name, text.encode())
    return [out / name for name in files]


def sealed(text: str, comment: str) -> str:
    """Return the text with a comment that shows later whether somebody has changed it."""
    return f'{text}{comment.format(SEAL + hashlib.sha256(text.encode()).hexdigest())}\n'


def untouched(text: str) -> bool:
    """Return whether a file is as `sealed` made it."""
    found = re.search(rf'^(?:<!--|#) {re.escape(SEAL)}([0-9a-f]{{64}})(?: -->)?\n\Z', text, re.M)
    return bool(found) and hashlib.sha256(text[:found.start()].encode()).hexdigest() == found[1]


def slug(name: str) -> str:
    """Return a name of a file or of a data set on the hub: 'ImageNet-1K, 50 %' -> 'imagenet-1k-50'."""
    return re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-') or 'data'


def measured(result: Result) -> dict[str, float]:
    """Return the metrics of a result in percent, by title, without those that were not measured."""
    values = {title: (result['metrics'].get(key), factor)
              for title, key, factor in METRICS[result['experiment']['task']]}
    # Six digits behind the point hide that 100 * 0.431 is no round number.
    return {title: round(factor * value, 6) for title, (value, factor) in values.items()
            if unmeasured(value, factor) is None}


def eval_results(run: Run, dataset_id: str | None, task_id: str | None) -> list[dict]:
    """Return the content of a file below `.eval_results`: the main metric, for a benchmark of the hub.

    Raises:
        CardError: an id is missing or no id of the hub, or the metric was not measured.
    """
    ids = (('--dataset-id', dataset_id, r'([\w.-]+/)?[\w.-]+'), ('--task-id', task_id, r'[\w.:-]+'))
    for option, value, form in ids:
        if not re.fullmatch(form, value or '', re.ASCII):
            raise CardError(f'{option} {clean(value or "is missing")}: give the id of the benchmark, and the id of its '
                            'task in the eval.yaml of the benchmark: --dataset-id ORG/NAME --task-id NAME')
    title = METRICS[run.task][0][0]
    if title not in measured(run.result):
        raise CardError(f'{run.path}: {title} was not measured, so there is no result to write; run tools/test.py, '
                        'or leave the ids out')
    notes = f'{title} in percent, one seed; method {run.method}, recipe {run.recipe}'
    return [dict(dataset=dict(id=dataset_id, task_id=task_id), value=measured(run.result)[title],
                 date=run.result['finished_at'], notes=clean(notes))]


def readme(run: Run, dataset_id: str | None, published: dict | None = None) -> str:
    """Return the card: its data for the hub, and text in Markdown."""
    here = replace(run, result=run.result | (published or {}))
    front = yaml.safe_dump(front_matter(run, dataset_id), sort_keys=False, allow_unicode=True)
    blocks = [f'# {escaped(f"{run.model}, {run.method}, {run.data_name}")}', what(run), '## Results', results(run),
              '## Training', training(run), '## Weights', weights(here.result), '## Use', use(here), '## Origin',
              origin(run.result)]
    return f'---\n{front}---\n\n' + '\n\n'.join(blocks) + '\n\n'


def front_matter(run: Run, dataset_id: str | None) -> dict:
    """Return what the hub reads: library, tags, task, and the metrics as a model index."""
    data = clean(run.data_name)
    front = dict(library_name='mmincubation', pipeline_tag=TASKS[run.task],
                 tags=['mmincubation', 'vit', *(['deep-incubation'] if is_incubated(run.result) else [])])
    metrics = [dict(type=METRIC_TYPES[title], name=f'{title} (percent, one seed)', value=value)
               for title, value in measured(run.result).items()]
    index = dict(task=dict(type=TASKS[run.task]), dataset=dict(type=dataset_id or slug(data), name=data),
                 metrics=metrics)
    if metrics:
        front['model-index'] = [dict(name=clean(f'{run.model} {run.method}'), results=[index])]
    return front


def is_incubated(result: Result) -> bool:
    """Return whether modules were trained alone."""
    return any(phase['name'].startswith('module') and phase['images'] for phase in result['phases'])


def what(run: Run) -> str:
    """Return what the model is, in two sentences."""
    how = ('Modules of it were trained one by one inside a small meta model, then assembled and fine-tuned '
           '([Deep Incubation](https://arxiv.org/abs/2212.04129)).' if is_incubated(run.result) else
           'Its phases of training are below.')
    note = run.result['experiment'].get('note')
    return ' '.join([f'{escaped(run.model)} for {run.task} on {escaped(run.data_name)}, method '
                     f'`{clean(run.method).replace("`", "?")}`, trained with MMIncubation.', how,
                     *([f'{escaped(note)}.'] if note else [])])


def results(run: Run) -> str:
    """Return the metrics as a table, with the number of seeds."""
    found = measured(run.result)
    rows = [[title, f'{found[title]:.1f}' if title in found else 'not measured', '1']
            for title, _, _ in METRICS[run.task]]
    return (f'{markdown_table(["metric", "percent", "n"], rows, {"percent", "n"})}\n\n'
            f'One seed ({run.result["seed"]}): there is no interval, so a small difference from another model says '
            'nothing.')


def training(run: Run) -> str:
    """Return the data, the main settings of the recipe, and the phases."""
    result, recipe = run.result, run.result.get('recipe', {})
    data = result['data']
    sets = [(kind, data[kind], data[f'{kind}_size']) for kind in ('train', 'val')]
    lines = [f'- {kind}: {escaped(name)}, {size or 0:,} images' for kind, name, size in sets if name]
    lines += [f'- {title}: {escaped(str(_plain(recipe[key])))}' for key, title in SETTINGS.items() if key in recipe]
    table = markdown_table(['phase', 'epochs', 'images', 'seconds', 'last validation'],
                           [list(map(escaped, phase_cells(phase))) for phase in result['phases']],
                           {'epochs', 'images', 'seconds'})
    return '\n'.join(lines) + f'\n\n{table}'


def _plain(value: str):
    """Return a value of a recipe, which is JSON."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def weights(result: Result) -> str:
    """Return the files that the run wrote, and what it started from."""
    rows = [[escaped(output['path']), output['sha256']] for output in result['outputs']]
    own = result['weights']
    start = f'It started from weights with sha256 {own["sha256"]}: {escaped(own["coverage"])}.' if own else (
        'The result names no weights that it started from.')
    return start + (f'\n\n{markdown_table(["file", "sha256"], rows, set())}' if rows else
                    '\n\nThe checkpoint of the run is its only weight file; its hash is not in the result.')


def use(run: Run) -> str:
    """Return the commands that measure the model again and load it."""
    config, file = shlex.quote(clean(run.result['config'])), whole_model(run.result)
    test = f'python tools/test.py {config} {shlex.quote(file) if file else "CHECKPOINT"}   # the numbers above'
    text = f'In a copy of MMIncubation at the commit below, with the files of this folder:\n\n```\n{test}\n```'
    if run.task == 'classification' and file:
        convert = f'python tools/convert.py {shlex.quote(file)} transformers.safetensors --to hf'
        backbone = (f'backbone = dict(\n    type=\'mmincubation.ViTBackbone\', arch={_arch(run.result)},\n'
                    f'    init_cfg=dict(type=\'Pretrained\', checkpoint={file!r}))')
        text = (f'{text[:-3]}{convert}\n```\n\nThe file has timm\'s names. As a backbone in a config of mmdet or mmseg:'
                f'\n\n```python\n{backbone}\n```')
    return text


def whole_model(result: Result) -> str | None:
    """Return the weight file of the whole model; None if the run wrote none."""
    files = {Path(output['path']).stem: clean(output['path']) for output in result['outputs']}
    return next((files[name] for name in WHOLE if name in files), None)


def _arch(result: Result) -> str:
    """Return the architecture as a config gives it."""
    prefix, recipe = 'model.arch.', result.get('recipe', {})
    fields = {key.removeprefix(prefix): _plain(value) for key, value in recipe.items() if key.startswith(prefix)}
    texts = [f'{name}={value!r}' for name, value in fields.items() if name.isidentifier()]
    return clean(f'dict({", ".join(texts)})') if texts else "'...'"


def origin(result: Result) -> str:
    """Return the code, the machine and the cost of the run."""
    versions = ', '.join(f'{name} {version}' for name, version in result['versions'].items())
    return '\n'.join(f'- {name}: {escaped(text)}' for name, text in (
        ('config', f'{result["config"]}, sha256 {result["config_sha256"]}'), ('commit', result['git_commit'] or '-'),
        ('seed', str(result['seed'])), ('machine', f'{result["devices"]} x {result["hardware"]}'),
        ('device-seconds', number(result['device_seconds'])), ('versions', versions),
        ('finished', result['finished_at'])))
