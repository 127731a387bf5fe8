"""Say what a suite would do, and what is missing; or print it as Slurm jobs."""
import shlex
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from mmincubation.check.cost import gib
from mmincubation.checkpoints.hub import is_address
from mmincubation.config.auto_arch import asking
from mmincubation.config.problems import problems
from mmincubation.errors import CheckpointError, ConfigError, clean, one_line
from mmincubation.recovery.checkpoint_files import checkpoints_of
from mmincubation.result import ResultError, require_experiment

from .cost import Durations, checkpoint_bytes
from .runs import ROOT, Run, command_of, probe_arguments, words_of
from .settings import FINISHED, OPEN, OTHER, Setting, Settings, weight_file_of
from .work import in_use, of_others, shown
from .written import all_names, written_weights


def dry_run(settings: Settings, jobs: int) -> int:
    """Print a line for each run, then what is missing; return 0, or 1 if anything is."""
    suite, durations, lacks = settings.suite, Durations(settings), defaultdict(list)
    print(f'{len(suite.runs)} run{"s" * (len(suite.runs) > 1)} in {suite.work_dir}, {jobs} at once; nothing runs now')
    width, need = max(map(len, suite.runs)), 0
    for run in suite.runs.values():
        state, why = settings.judge(run)
        unlike = _unlike(run, settings) if state == OPEN else ''
        word = 'refused' if unlike else {FINISHED: 'finished', OTHER: 'refused'}.get(state) or _word(run)
        cost = '' if state == FINISHED else durations.said(run, settings)
        print(clean(f'{run.name:<{width}}  {word:<9}  {cost}').rstrip())
        if state == OTHER:
            lacks[f'{run.folder} {of_others(why)}'].append(run.name)
        if state != FINISHED:
            lines = list(_lacks(run, settings))
            known = run.config and not lines and not asking(settings.of(run).cfg)
            need += checkpoint_bytes(run, settings) if known else 0
            for line in [*lines, *filter(None, [unlike])]:
                lacks[line].append(run.name)
    free = shutil.disk_usage(next(p for p in [suite.work_dir, *suite.work_dir.absolute().parents] if p.exists())).free
    print(f'disk: {gib(free)} free' + f', checkpoints of runs with nothing missing take about {gib(need)}' * bool(need))
    lines = [f'{line} ({", ".join(names)})' for line, names in lacks.items()]
    lines += ['disk: too little is free'] * (need > free)
    for line in lines:
        print(clean(f'{"missing" if " does not exist" in line else "wrong"}: {line}'))
    return 1 if lines else 0


def wrong_runs(settings: Settings, runs: Iterable[Run]) -> Iterator[tuple[Run, str]]:
    """Yield the runs that could not begin, each with the first reason; seeds share what is found."""
    known: dict[str, list[str]] = {}
    for run in list(runs):
        weights = '' if run.weights in settings.suite.runs else run.weights
        key = repr((run.config, run.options, run.probe, weights, run.needs if run.seed is None else ()))
        if key not in known:
            known[key] = list(_lacks(run, settings))
        if why := next(iter(known[key]), '') or _unlike(run, settings):
            yield run, why


def _unlike(run: Run, settings: Settings) -> str:
    # A run of another process is waited for, and its checkpoints come and go.
    try:
        return settings.unlike_checkpoint(run) if run.config and not in_use(run.folder) else ''
    except CheckpointError as error:
        return str(error)


def _word(run: Run) -> str:
    return 'goes on' if run.config and checkpoints_of(run.folder) else 'to run'


def _lacks(run: Run, settings: Settings) -> Iterator[str]:
    """Yield a line for each thing that is wrong or missing, but what other runs of the suite will make."""
    setting, suite = settings.of(run), settings.suite
    if run.config:
        found = _problems(run, settings)
        makers = suite.before(run).values()
        made = [f'{path}/' for path in (suite.work_dir / 'weights', *(need.folder for need in makers))]
        if any(need.command for need in makers):  # it makes data, and does not say where
            made.append(' does not exist')
        yield from (line for line in found if not any(path in line for path in made))
        yield from _never_written(setting, makers, settings)
    elif run.probe:
        given, _ = probe_arguments(run)
        paths = [given.train, given.val, *([] if run.weights in suite.runs else [setting.weights])]
        yield from (f'{path} does not exist' for path in paths if not is_address(path) and not Path(path).exists())


def _problems(run: Run, settings: Settings) -> list[str]:
    """Return the problems of a training's config; without `experiment` it would train, and leave no result."""
    cfg = settings.of(run).cfg
    try:
        settings.settle(run)
        found = problems(cfg, 'train', settings.gpus, settings.gpus > 1 or torch.cuda.is_available())
        require_experiment(cfg.get('experiment'))
    except ResultError as error:
        found.append(str(error))
    except CheckpointError as error:
        found = [str(error)]
    except Exception as error:  # of a config that no check has foreseen
        found = [one_line(error)]
    return list(dict.fromkeys(found))


def _never_written(setting: Setting, makers: Iterable[Run], settings: Settings) -> Iterator[str]:
    """Yield a line if a run begins with a file in the weights of a training before it, which does not write it."""
    path = Path(weight_file_of(setting))
    for maker in makers:
        if not maker.config or path.parent != maker.folder / 'weights' or path.exists():
            continue
        try:
            files = written_weights(settings.of(maker).cfg, maker.folder)
        except ConfigError as error:
            yield f'{path}, of {maker.name}: {error}'
        else:
            if path.name not in all_names(files):
                yield f'{path}: {maker.name} writes no such file, but {", ".join(file.name for file in files.values())}'


def print_jobs(settings: Settings) -> None:
    """Print the commands that hand the runs that are not finished to Slurm, each after those that it needs."""
    suite, jobs = settings.suite, {}
    print('# PARTITION is yours; run these lines in the folder of the repository')
    for run in suite.runs.values():
        if settings.judge(run)[0] == FINISHED:
            print(f'# {run.name}: finished')
            continue
        setting = settings.of(run)
        if run.command:
            print(shown(list(run.command)))
            continue
        jobs[run.name] = f'job{len(jobs)}'
        after = ':'.join(f'${jobs[name]}' for name in run.needs if name in jobs)
        print(f'{jobs[run.name]}=$({_submit(run, setting, settings.gpus, after)})')


def _submit(run: Run, setting, gpus: int, after: str) -> str:
    wait = f'--dependency=afterok:{after}'
    if run.probe:
        probe = shlex.quote(shown(command_of(run, {}, setting.weights)))
        return (f'sbatch --parsable --partition="$PARTITION" --job-name={shlex.quote(run.name)} --gres=gpu:1 '
                f'{wait + " " if after else ""}--wrap={probe}')
    options = ['--cfg-options', *words_of(setting.options)] if setting.options else []
    words = shlex.join([run.name, run.config, '--work-dir', str(run.folder), *options])
    extra = f' SRUN_ARGS="{wait}"' * bool(after)
    script = (ROOT / 'tools/slurm_train.sh').relative_to(ROOT)
    return f'GPUS={gpus}{extra} {script} "$PARTITION" {words} | grep -o "[0-9]*$"'
