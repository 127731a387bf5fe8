"""The runs of a suite, and the suite file that lists them."""
import os
import sys
from argparse import Namespace
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path

from mmincubation.config.load import load_config
from mmincubation.config.values import read_value
from mmincubation.errors import ConfigError
from mmincubation.probes.arguments import probe_parser, require_apart

ROOT = Path(__file__).resolve().parents[2]
KINDS = ('config', 'probe', 'command')
FILE_KEYS = ('work_dir', 'results', 'seeds', 'runs')
NO_SUITE = 'this is no suite, runs is missing or empty: give runs = [dict(config=PATH, seeds=3)]'
WORDS = (str, list, tuple)  # one word, or several
# What the keys of a file, of a run and of a probe may be, in Python and in words; `seeds` has a test of its own.
TYPES = dict(
    work_dir=(str, "the name of a folder such as 'work_dirs/study'"),
    results=(str, "the folder for copies of the results, such as 'results/study'"),
    name=(str, "the name of a folder such as 'e2e'"), config=(str, "a path such as 'configs/demo/vit_demo_e2e.py'"),
    options=(dict, "a dict such as {'model.drop_path_rate': 0.1}"), probe=(dict, 'dict(train=DIR, val=DIR)'),
    command=(WORDS, "words such as ['python', 'make.py']"), weights=(str, "a run's name, or a file such as 'mae.pth'"),
    needs=(WORDS, "names of runs such as ['e2e']"), seconds=((int, float), 'a number such as 60'))


@dataclass(frozen=True)
class Run:
    """One run of a suite: a training, a probe, or any other command.

    A training has `config`, and `options` by dotted name as --cfg-options has them. `weights` is the name of another
    run, or a file: the backbone, or the classifier, begins with it. A probe has the options of tools/probe.py in
    `probe`, and measures `weights`. A `command` is run each time: it must be quick if its work is done. `needs` are
    runs that must be finished before. `seconds` is a guess at the duration, for the ETA.
    """
    name: str
    folder: Path
    config: str = ''
    options: dict = field(default_factory=dict)
    probe: dict = field(default_factory=dict)
    command: tuple[str, ...] = ()
    weights: str = ''
    needs: tuple[str, ...] = ()
    seed: int | None = None
    seconds: float = 0.

    @property
    def results(self) -> list[Path]:
        """The files that exist once the run is finished; a command has none."""
        if self.probe:
            return [self.folder / kind / 'result.json' for kind in dict.fromkeys(probe_arguments(self)[0].probes)]
        return [self.folder / 'result.json'] if self.config else []


@dataclass(frozen=True)
class Suite:
    """The runs in their order, by name, the folder of their work dirs, and the one for copies of their results."""
    work_dir: Path
    runs: dict[str, Run]
    results: Path | None = None

    def before(self, run: Run) -> dict[str, Run]:
        """Return all runs that a run needs, those that these need among them."""
        found = {}
        for name in run.needs:
            found |= {**self.before(self.runs[name]), name: self.runs[name]}
        return found


def read_suite(path: str | Path, work_dir: str | None = None) -> Suite:
    """Read a suite file; `work_dir` is in the place of its own.

    Raises:
        ConfigError: one line that names what is wrong in it.
    """
    cfg = load_config(path).to_dict()
    try:
        if not isinstance(cfg.get('runs'), list | tuple) or not cfg['runs']:
            raise ConfigError(NO_SUITE)
        keys = [key for key in cfg if key not in FILE_KEYS and not key.startswith('_')]
        _refuse_unknown(keys, FILE_KEYS, ' (helpers begin with an underscore)')
        _refuse_types(cfg, '')
        work_dir = Path(work_dir or cfg.get('work_dir') or Path('work_dirs') / Path(path).stem)
        suite = make_suite(work_dir, cfg['runs'], cfg.get('seeds'))
        return replace(suite, results=Path(cfg['results'])) if cfg.get('results') else suite
    except ConfigError as error:
        raise ConfigError(f'{path}: {error}') from None


def make_suite(work_dir: Path, entries: Iterable[dict], seeds: int | list | None = None) -> Suite:
    """Make the runs of entries, one for each seed; `seeds` is for trainings that have none of their own.

    Raises:
        ConfigError: an entry is wrong.
    """
    runs: dict[str, Run] = {}
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ConfigError(f'runs.{number}={entry!r:.60}: give a dict such as dict(config=PATH)')
        for run in _runs_of(entry, number, work_dir, seeds):
            if run.name in runs:
                raise ConfigError(f'two runs are called {run.name}: give one another name=...')
            runs[run.name] = run
    for run in runs.values():
        runs[run.name] = _linked(run, runs)
    _refuse_circles(runs)
    return Suite(work_dir, runs)


def _runs_of(entry: dict, number: int, work_dir: Path, seeds) -> list[Run]:
    place, entry = f'runs.{number}', dict(entry)
    keys = [f.name for f in fields(Run) if f.name not in ('folder', 'seed')]
    _refuse_unknown(entry, [*keys, 'seeds'], '', f'{place}.')
    _refuse_types(entry, f'{place}.')
    entry = {key: value for key, value in entry.items() if value is not None or key == 'seeds'}
    kinds = [kind for kind in KINDS if entry.get(kind)]
    if len(kinds) != 1:
        raise ConfigError(f'{place}: give one of config (a training), probe and command, not {len(kinds)} of them')
    name = entry.pop('name', '') or Path(entry.get('config', '')).stem
    if not name or name != os.path.basename(name) or name.startswith(('.', '-')):
        raise ConfigError(f'{place}.name={name!r:.60}: give the name of a folder')
    if entry.get('probe') and not (entry.get('weights') and {'train', 'val'} <= set(entry['probe'])):
        raise ConfigError(f'{place}: a probe needs weights=..., and probe=dict(train=DIR, val=DIR)')
    own = entry.pop('seeds', seeds if entry.get('config') else None)
    words = {key: tuple([value] if isinstance(value, str) else value) for key in ('command', 'needs')
             if (value := entry.pop(key, None))}
    run = Run(name, work_dir / name, **entry, **words)
    if run.probe:
        _refuse_probe(run.probe, f'{place}.probe')
    if own is None:
        return [run]
    return [replace(run, name=f'{name}_seed{seed}', folder=work_dir / f'{name}_seed{seed}', seed=seed)
            for seed in seed_list(own, f'{place}.seeds')]


def seed_list(seeds, place: str) -> list[int]:
    """Return the seeds of a number of seeds, or of a list of them."""
    given = list(range(seeds)) if type(seeds) is int else list(seeds) if isinstance(seeds, list | tuple) else []
    if not given or any(type(seed) is not int or seed < 0 for seed in given) or len(set(given)) < len(given):
        raise ConfigError(f'{place}={seeds!r:.60}: give a number of seeds, 1 or more, or a list of different ones')
    return given


def _linked(run: Run, runs: dict[str, Run]) -> Run:
    """Replace names by those of the run's own seed, and let it need the run whose weights it takes."""
    def of_seed(name: str) -> str:
        return next((known for known in (f'{name}_seed{run.seed}', name) if known in runs), '')

    for key, name in [*(('needs', name) for name in run.needs), ('weights', run.weights)]:
        seeds = [other for other in runs if name and other.startswith(f'{name}_seed')]
        if not of_seed(name) and (seeds or key == 'needs'):  # other weights are a file
            near = ', '.join(seeds or get_close_matches(name, runs, 1))
            raise ConfigError(f'{run.name}: {key}={name!r:.60}: no such run' + f'; there is {near}' * bool(near))
    weights = of_seed(run.weights)
    needs = [*map(of_seed, run.needs), *([weights] if weights else [])]
    return replace(run, needs=tuple(dict.fromkeys(needs)), weights=weights or run.weights)


def _refuse_circles(runs: dict[str, Run]) -> None:
    done: set[str] = set()
    while ready := [run.name for run in runs.values() if run.name not in done and done.issuperset(run.needs)]:
        done.update(ready)
    if left := [name for name in runs if name not in done]:
        raise ConfigError(f'these runs need each other: {", ".join(left)}')


def _refuse_unknown(keys: Iterable[str], valid: Iterable[str], hint: str, place: str = '') -> None:
    for key in keys:
        if key not in valid:
            near = get_close_matches(key, list(valid), 1) or sorted(valid)
            raise ConfigError(f'{place}{key}: no key of a suite; nearest: {", ".join(near)}{hint}')


def _refuse_types(given: dict, place: str) -> None:
    """Refuse values that no key of TYPES takes; None is not given."""
    for key, (kinds, words) in TYPES.items():
        value = given.get(key)
        inner = value if isinstance(value, dict | list | tuple) else ()  # the keys of a dict are words too
        fits = isinstance(value, kinds) and not isinstance(value, bool) and all(isinstance(item, str) for item in inner)
        if value is not None and not fits:
            raise ConfigError(f'{place}{key}={value!r:.60}: give {words}')


def _refuse_probe(probe: dict, place: str) -> None:
    known = set(vars(_parsed({}, place))) - {'weights', 'out'}
    _refuse_unknown(probe, known, '', f'{place}.')
    given = _parsed(probe, place)
    try:
        require_apart(given.train, given.val)
    except ConfigError as error:
        raise ConfigError(f'{place}: {error}') from error


def probe_arguments(run: Run) -> tuple[Namespace, Namespace]:
    """Return the arguments that tools/probe.py gets for a run, and those that it would have without any."""
    return _parsed(run.probe, run.name), _parsed({}, run.name)


def _parsed(probe: dict, place: str) -> Namespace:
    def refuse(message: str) -> None:
        raise ConfigError(f'{place}: {message}')

    parser = probe_parser()
    parser.error = refuse  # else it ends the process
    return parser.parse_args(['WEIGHTS', *_probe_words(dict(train='', val='') | probe)])


def _probe_words(probe: dict) -> list[str]:
    return [str(word) for key, value in probe.items() if value is not None
            for word in (f'--{key.replace("_", "-")}', *(value if isinstance(value, list | tuple) else [value]))]


def words_of(options: dict) -> list[str]:
    """Return options as the words of --cfg-options."""
    return [f'{key}={value if _plain(value) else repr(value)}' for key, value in options.items()]


def _plain(value) -> bool:
    try:
        return isinstance(value, str) and value != '' and read_value(value) == value
    except ValueError:  # brackets that are not closed
        return False


def tool(name: str) -> str:
    """Return the path of a tool, relative where it is below the current folder."""
    path = ROOT / 'tools' / name
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def command_of(run: Run, options: dict, weights: str, gpus: int = 1) -> list[str]:
    """Return the words of the command of a run; `options` and `weights` are those of `Setting`."""
    if run.command:
        return [sys.executable if word == 'python' else word for word in run.command]
    if run.probe:
        return [sys.executable, tool('probe.py'), weights, *_probe_words(run.probe), '--out', str(run.folder)]
    start = [tool('dist_train.sh'), run.config, str(gpus)] if gpus > 1 else [
        sys.executable, tool('train.py'), run.config]
    return [*start, '--work-dir', str(run.folder), '--resume',
            *(['--cfg-options', *words_of(options)] if options else [])]
