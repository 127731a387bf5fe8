"""Do the runs of a suite, several at once, with progress; a run that fails stops only those that need it."""
import fcntl
import os
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import STDOUT, Popen

from mmincubation.atomic import write_atomic
from mmincubation.errors import INTERRUPTED, PREEMPTED, CheckpointError, ConfigError, clean
from mmincubation.recovery.lock import LOCK

from .cost import Durations, clock
from .runs import Run, command_of
from .settings import FINISHED, OTHER, Settings

LINE = re.compile(r'(?:\[(?P<phase>\w+)[],].*?)?(?P<at>(?:Epoch|Iter)\(\w+\) *(?:\[[^]]*\])+).*?eta: (?P<eta>[\d:]+)')
ERROR = re.compile(r'(error|[\w.]*(Error|Exception|Lost|Preempted|Interrupted)): ')  # as the tools, and Python, say it
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
TAIL, SHOWN = 15, 200  # lines of the log of a run that has failed, and characters of the last at the end
LOG = 'suite.log'


@dataclass
class Job:
    """A run at work; `process` is None if another process, not of this suite, does it."""
    run: Run
    slot: int
    process: Popen | None
    began: float = field(default_factory=time.monotonic)

    def ended(self) -> bool:
        """Return whether the run is over."""
        return not in_use(self.run.folder) if self.process is None else self.process.poll() is not None

    def status(self) -> str:
        """Return the progress of the run, from the last line of its log that tells it."""
        log = self.run.folder / LOG
        found = list(LINE.finditer(log.read_text(errors='replace'))) if log.exists() else []
        if not found:
            return f'{self.run.name}: starting'
        last = found[-1]
        phase = f'{last["phase"]} ' if last['phase'] else ''
        at = re.sub(r' +(?=[][0-9])', '', last['at'])
        return f'{self.run.name}: {phase}{at} eta {last["eta"]}'


@dataclass
class Work:
    """The runs of a suite that wait, are at work, and have failed.

    `renew` deletes what an earlier run of other settings has left; else such a run fails, and nothing is lost.
    """
    settings: Settings
    jobs: int
    devices: list[str]
    renew: bool = False
    poll: float = .2
    report: float = 15.
    waiting: list[Run] = field(default_factory=list)
    running: list[Job] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    signals: list[int] = field(default_factory=list)

    def __post_init__(self):
        self.durations = Durations(self.settings)

    def plan(self) -> None:
        """Put what is not finished on the list, and say what is reused."""
        for run in self.settings.suite.runs.values():
            needed = [self.settings.suite.runs[name] for name in run.needs]
            # What a run needs may become another file; then it is judged when that is finished.
            if any(need in self.waiting and not need.command for need in needed) or not self._reused(run):
                self.waiting.append(run)

    def _reused(self, run: Run) -> bool:
        if self.settings.judge(run)[0] != FINISHED:
            return False
        self._keep(run)
        print(f'= {run.name}: finished earlier, reused ({run.results[0]})', flush=True)
        return True

    def _keep(self, run: Run) -> None:
        """Copy the results of a finished run to the folder that the suite names."""
        suite = self.settings.suite
        for path in run.results if suite.results else ():
            copy_to = suite.results / path.relative_to(suite.work_dir)
            copy_to.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(copy_to, path.read_bytes())

    def do(self) -> int:
        """Do all runs; return 0, 1 if one has failed, or the exit code for the signal that has stopped them."""
        total, began, said = len(self.waiting), time.monotonic(), 0.
        with _noting(self.signals.append):
            try:
                while (self.waiting or self.running) and not self.signals:
                    self._start_what_can()
                    time.sleep(self.poll)
                    self._collect()
                    if time.monotonic() - said > self.report and self.running:
                        said = time.monotonic()
                        self._say_progress(total, said - began)
            except BaseException:  # no run goes on without its suite
                self._stop(signal.SIGTERM)
                raise
            if self.signals:
                return self._stop(self.signals[0])
        return 1 if self.failed else 0

    def _start_what_can(self) -> None:
        for run in list(self.waiting):
            busy = {other.name for other in self.waiting} | {job.run.name for job in self.running}
            if lost := [name for name in run.needs if name in self.failed]:
                self.waiting.remove(run)
                self.failed[run.name] = f'not run, it needs {lost[0]}'
            elif len(self.running) < self.jobs and not busy & set(run.needs):
                self.waiting.remove(run)
                self._start(run)

    def _start(self, run: Run) -> None:
        try:
            if self._reused(run):
                return
            slot = min(set(range(self.jobs)) - {job.slot for job in self.running})
            if run.config and in_use(run.folder):
                print(f'= {run.name}: another process does it ({run.folder} is locked): waits for its end', flush=True)
                self.running.append(Job(run, slot, None))
                return
            self._clear(run)
            self.running.append(Job(run, slot, self._popen(run, slot)))
        except (CheckpointError, ConfigError, OSError) as error:
            self._fail(run, f'error: {error}')

    def _clear(self, run: Run) -> None:
        """Delete, or refuse, what other settings have left."""
        state, why = self.settings.judge(run)
        if self.renew and (state == OTHER or run.config and self.settings.unlike_checkpoint(run)):
            shutil.rmtree(run.folder)
        elif state == OTHER:
            raise ConfigError(f'{run.folder} {of_others(why)}')

    def _popen(self, run: Run, slot: int) -> Popen:
        setting, gpus = self.settings.of(run), self.settings.gpus
        command = command_of(run, setting.options, setting.weights, gpus)
        run.folder.mkdir(parents=True, exist_ok=True)
        threads = str(max(1, cores() // self.jobs))
        # MKL follows OMP_NUM_THREADS: a number of its own would stay when the user sets OMP_NUM_THREADS alone.
        env = dict(OMP_NUM_THREADS=threads) | os.environ | dict(PYTHONUNBUFFERED='1')
        env.pop('PORT', None)  # one for all runs: without it each finds its own
        if self.devices:
            first = slot % (len(self.devices) // gpus) * gpus
            env['CUDA_VISIBLE_DEVICES'] = ','.join(self.devices[first:first + gpus])
        print(f'+ {shown(command)}', flush=True)
        with (run.folder / LOG).open('w') as out:
            # A session of its own: Ctrl-C reaches it through this process, once.
            return Popen(command, stdout=out, stderr=STDOUT, env=env, start_new_session=True)

    def _collect(self) -> None:
        for job in [job for job in self.running if job.ended()]:
            self.running.remove(job)
            if job.process is None:
                self.waiting.insert(0, job.run)  # judged anew
            elif job.process.returncode:
                self._fail_with_log(job.run, job.process.returncode)
            elif job.run.results and (judged := self.settings.judge(job.run))[0] != FINISHED:
                why = f'of other settings ({judged[1]})' if judged[1] else 'not there'
                self._fail(job.run, f'ended, but {job.run.results[0]} is {why}')
            else:
                self._finish(job)

    def _finish(self, job: Job) -> None:
        try:
            self._keep(job.run)
        except OSError as error:
            self._fail(job.run, f'its result cannot be copied to {self.settings.suite.results} ({error})')
            return
        self.durations.add(job.run, time.monotonic() - job.began)
        print(f'= {job.run.name}: finished in {clock(time.monotonic() - job.began)}', flush=True)

    def leave_out(self, run: Run, why: str) -> None:
        """Take a run that could not begin off the list."""
        self.waiting.remove(run)
        self._fail(run, f'not run: {why}')

    def _fail(self, run: Run, text: str) -> None:
        """Note and print why a run could not begin."""
        self.failed[run.name] = text
        print(clean(f'{run.name}: {text}'), file=sys.stderr, flush=True)

    def _fail_with_log(self, run: Run, code: int) -> None:
        """Note and print why a run has ended before its end."""
        log = run.folder / LOG
        lines = [clean(line) for line in log.read_text(errors='replace').splitlines() if line.strip()][-TAIL:]
        print(f'{run.name}: failed with exit code {code}; the end of {log}:', *lines, sep='\n', file=sys.stderr,
              flush=True)
        # An error of several lines begins with what is wrong.
        at = max((i for i, line in enumerate(lines) if ERROR.match(line)), default=-1)
        why = ' '.join(line.strip() for line in lines[at:])[:SHOWN] or 'without a word'
        self.failed[run.name] = (f'exit code {code}, {why}; see '
                                 f'it by: tail -n 40 {shlex.quote(str(log))}')

    def _say_progress(self, total: int, gone: float) -> None:
        done = total - len(self.waiting) - len(self.running)
        left = self.durations.left(self.waiting, [(job.run, job.began) for job in self.running], self.jobs)
        failed = f', {len(self.failed)} failed' * bool(self.failed)
        print(f'[{done}/{total} runs{failed}, {clock(gone)} gone, {left}]  '
              f'{"  |  ".join(clean(job.status()) for job in self.running)}', flush=True)

    def _stop(self, number: int) -> int:
        """Pass a signal on and wait: trainings write a checkpoint. A second signal ends them at once."""
        began, killed = self.signals[:1], False
        own = [job for job in self.running if job.process is not None]
        why = signal.Signals(number).name if self.signals else 'an error of the suite'
        print(f'{why}: waits until {len(own)} runs have stopped; another signal ends them at once'
              + '; other processes go on' * (len(own) < len(self.running)), file=sys.stderr, flush=True)
        for job in own:
            job.process.send_signal(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)
        while any(not job.ended() for job in own):
            time.sleep(min(self.poll, .1))
            if len(self.signals) > len(began) and not killed:
                killed = True
                for job in own:
                    if not job.ended():
                        os.killpg(job.process.pid, signal.SIGKILL)
        print('Stopped. The same command goes on from here.', file=sys.stderr)
        return INTERRUPTED if number == signal.SIGINT else PREEMPTED


@contextmanager
def _noting(note: Callable[[int], None]):
    """Note signals instead of ending; one that this process was started to ignore stays ignored."""
    before = {number: signal.signal(number, lambda got, _: note(got)) for number in SIGNALS
              if signal.getsignal(number) != signal.SIG_IGN}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def in_use(folder: Path) -> bool:
    """Return whether a run works in the folder that another process has started, such as a suite that was killed."""
    try:
        with open(folder / LOCK) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such run, or a file system without locks
        pass
    return False


def of_others(why: str) -> str:
    """Return what is wrong with a folder that has results of other settings, and the remedy."""
    return f'has results of other settings ({why}): move it away, delete it, or give the run another name'


def shown(command: list[str]) -> str:
    """Return a command as one would type it."""
    return clean(shlex.join(['python' if word == sys.executable else word for word in command]))


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
