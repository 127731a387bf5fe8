"""Run every step of the demo with the public tools, as many at once as there are cores."""
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

LINE = re.compile(r'(?:\[(?P<phase>\w+)[],].*?)?(?P<at>(?:Epoch|Iter)\(\w+\) *\[[^ ]*).*?eta: (?P<eta>[\d:]+)')


@dataclass
class Step:
    """A command of the demo and the names of the steps that it needs.

    ``seconds`` is its duration alone on one core of the machine that the README names; the ETA uses it.
    """
    name: str
    seconds: int
    needs: tuple[str, ...] = ()

    @property
    def config(self) -> Path:
        """The path of the config."""
        return Path('configs/demo') / f'{self.name}.py'

    @property
    def folder(self) -> Path:
        """The work dir of the run."""
        return Path('work_dirs') / self.name

    @property
    def product(self) -> Path:
        """The file that exists once the step is finished."""
        return Path('data/demo/manifest.json') if self.name == 'data' else self.folder / 'result.json'

    @property
    def sources(self) -> list[Path]:
        """The files that make the product out of date when they are newer."""
        if self.name == 'data':
            return list(Path('mmincubation/demo').glob('*.py'))
        return [self.config, *Path('configs/_base_').rglob('*.py'), *(STEPS[n].product for n in self.needs)]

    def finished(self) -> bool:
        """Return whether the product exists and is newer than all its sources."""
        return self._up_to_date(self.product)

    def _up_to_date(self, made: Path) -> bool:
        if not made.exists():
            return False
        when = made.stat().st_mtime
        return all(source.exists() and source.stat().st_mtime <= when for source in self.sources)

    def command(self) -> list[str]:
        """Return the command to run.

        An interrupted training resumes, unless its sources have changed; otherwise its folder is removed first.
        """
        if self.name == 'data':
            shutil.rmtree(self.product.parent, ignore_errors=True)
            return [sys.executable, 'tools/make_demo_data.py']
        interrupted = not self.product.exists() and self._up_to_date(self.folder / 'last_checkpoint')
        if not interrupted:
            shutil.rmtree(self.folder, ignore_errors=True)
        return [sys.executable, 'tools/train.py', str(self.config), *(['--resume'] if interrupted else [])]


STEPS = {step.name: step for step in [
    Step('data', 20),
    Step('vit_demo_incub_grow', 200, ('data', )),
    Step('vit_demo_meta_only', 350, ('data', )),
    Step('vit_demo_grow_only', 230, ('data', )),
    Step('vit_demo_e2e', 180, ('data', )),
    Step('vit_demo_incub', 200, ('data', )),
    Step('vit_demo_stack_only', 230, ('data', )),
    Step('maskrcnn_vit_demo_incub_grow', 110, ('vit_demo_incub_grow', )),
    Step('maskrcnn_vit_demo_grow_only', 110, ('vit_demo_grow_only', )),
    Step('maskrcnn_vit_demo_e2e', 110, ('vit_demo_e2e', )),
    Step('maskrcnn_vit_demo_scratch', 110, ('data', )),
    Step('upernet_vit_demo_incub_grow', 150, ('vit_demo_incub_grow', )),
    Step('upernet_vit_demo_grow_only', 150, ('vit_demo_grow_only', )),
    Step('upernet_vit_demo_e2e', 150, ('vit_demo_e2e', )),
    Step('upernet_vit_demo_scratch', 150, ('data', )),
]}


@dataclass
class Job:
    """A running step."""
    step: Step
    process: subprocess.Popen
    log: Path
    began: float

    @classmethod
    def start(cls, step: Step) -> 'Job':
        """Start the command of a step, with its output in ``demo.log``."""
        command = step.command()
        step.folder.mkdir(parents=True, exist_ok=True)
        log = step.folder / 'demo.log'
        # One thread each: two processes of one thread use two cores better than one process of two.
        env = dict(os.environ, OMP_NUM_THREADS='1', MKL_NUM_THREADS='1', PYTHONUNBUFFERED='1')
        with log.open('w') as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=env)
        print(f'+ {" ".join(["python", *command[1:]])}', flush=True)
        return cls(step, process, log, time.monotonic())

    def status(self) -> str:
        """Return the progress of the step, from the last line of its log that tells it."""
        found = list(LINE.finditer(self.log.read_text(errors='replace')))
        if not found:
            return f'{self.step.name}: starting'
        last = found[-1]
        phase = f'{last["phase"]} ' if last['phase'] else ''
        return f'{self.step.name}: {phase}{" ".join(last["at"].split())} eta {last["eta"]}'


def run_demo(poll: float = 1., report: float = 15.) -> int:
    """Run what is not finished yet, then the leaderboard; return the exit code."""
    began, jobs = time.monotonic(), []
    waiting = []
    for step in STEPS.values():
        # A step is out of date as well if one that it needs runs again.
        stale = any(STEPS[n] in waiting for n in step.needs)
        if step.finished() and not stale:
            print(f'= {step.name}: finished earlier, reused ({step.product})')
        else:
            waiting.append(step)
    try:
        if failed := _work(waiting, jobs, poll, report):
            return _explain(failed)
    finally:
        for job in jobs:
            job.process.terminate()
    print(f'All steps finished after {_clock(time.monotonic() - began)}.', flush=True)
    return subprocess.call([sys.executable, 'tools/leaderboard.py', 'work_dirs'])


def _work(waiting: list[Step], jobs: list[Job], poll: float, report: float) -> Job | None:
    """Keep every core busy until no step is left; return the first job that failed."""
    slots, total, began, said = _cores(), len(waiting), time.monotonic(), 0.
    while waiting or jobs:
        # A step can start once nothing that it needs is waiting or running.
        busy = {s.name for s in waiting} | {job.step.name for job in jobs}
        for step in [s for s in waiting if not busy & set(s.needs)][:slots - len(jobs)]:
            waiting.remove(step)
            jobs.append(Job.start(step))
        time.sleep(poll)
        for job in [j for j in jobs if j.process.poll() is not None]:
            jobs.remove(job)
            if job.process.returncode:
                return job
            print(f'= {job.step.name}: finished in {_clock(time.monotonic() - job.began)}', flush=True)
        if time.monotonic() - said > report and jobs:
            said = time.monotonic()
            done = total - len(waiting) - len(jobs)
            print(f'[{done}/{total} steps, {_clock(said - began)} gone, about {_clock(_left(waiting, jobs, slots))} '
                  f'left]  {"  |  ".join(job.status() for job in jobs)}', flush=True)
    return None


def _left(waiting: list[Step], jobs: list[Job], slots: int) -> float:
    """Return the expected seconds to go, from the durations above."""
    # A step that takes longer than expected still needs some seconds.
    running = [max(job.step.seconds - (time.monotonic() - job.began), 5) for job in jobs]
    return max([(sum(running) + sum(s.seconds for s in waiting)) / slots, *running])


def _explain(job: Job) -> int:
    print(f'{job.step.name} failed with exit code {job.process.returncode}; the end of {job.log}:', file=sys.stderr)
    print('\n'.join(job.log.read_text(errors='replace').splitlines()[-15:]), file=sys.stderr)
    print('Run `make demo` again to go on from here, or `make clean-demo` to begin anew.', file=sys.stderr)
    return 1


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def _clock(seconds: float) -> str:
    return f'{int(seconds) // 60}:{int(seconds) % 60:02d}'
