"""Runs of the tools in forks of a process that has imported everything: real signals and exit codes in a second."""
import importlib.util
import multiprocessing
import os
import pkgutil
import re
import signal
import socket
import sys
import time
from pathlib import Path

from tests.helpers.paths import ROOT

LIMIT = 90  # seconds, for a run that hangs
# Not forks of the tests' own process: torch refuses a backward pass in a fork of a process that has made one.
CONTEXT = multiprocessing.get_context('forkserver')
CONTEXT.set_forkserver_preload(['tests.helpers.preloaded'])


class Slow:
    """A transform that changes nothing and takes its time."""

    def __init__(self, seconds: float):
        self.seconds = seconds

    def __call__(self, image):
        time.sleep(self.seconds)
        return image


def redirect(out: Path, err: Path) -> None:
    """This process becomes a process group of its own and prints into files, or into one."""
    os.setsid()
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
    sys.stdout = open(1, 'w', buffering=1, closefd=False)
    sys.stderr = sys.stdout if out == err else open(2, 'w', buffering=1, closefd=False)


def main(out: Path, tool: str, args: tuple, env: dict, kill_at: str | None) -> None:
    """What the fork of a `Run` does."""
    redirect(out, out)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run in the background ignore it
    os.environ.update(env, OMP_NUM_THREADS='1')
    sys.argv = [tool, *map(str, args)]
    spec = importlib.util.spec_from_file_location('tool', ROOT / f'tools/{tool}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if kill_at:
        suicide(kill_at)
    from mmincubation.engine import launch
    sys.exit(getattr(launch, tool)(module.parse_args()))


def suicide(kill_at: str) -> None:
    """Make a function kill this process group at its n-th call."""
    path, times, *after = kill_at.split(':')
    owner, _, name = path.rpartition('.')
    owner, calls = pkgutil.resolve_name(owner), []
    original = getattr(owner, name)

    def deadly(*args, **kwargs):
        calls.append(1)
        last = len(calls) == int(times)
        if last and not after:
            os.killpg(0, signal.SIGKILL)
        result = original(*args, **kwargs)
        if last:
            os.killpg(0, signal.SIGKILL)
        return result

    setattr(owner, name, deadly)


class Run:
    """tools/`tool`.py with arguments, in a process group of its own; `text()` is what it has printed so far.

    With `kill_at='module.function:n'` (or `:n:after`) it kills itself before, or after, its n-th call of that function.
    """

    def __init__(self, out: Path, tool: str, *args, kill_at: str | None = None, **env):
        self.out = out
        out.unlink(missing_ok=True)
        self.process = CONTEXT.Process(target=main, args=(out, tool, args, env, kill_at))
        self.process.start()
        self.pid = self.process.pid

    def text(self) -> str:
        return self.out.read_text() if self.out.exists() else ''

    def wait_for(self, pattern: str, seconds: float = 60.) -> re.Match:
        """The first match of `pattern` in what it prints."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text())):
            assert self.process.is_alive() and time.monotonic() < end, self.text()
            time.sleep(0.01)
        return found

    def send(self, number: int, group: bool = False) -> None:
        """A signal to it, or to its whole process group."""
        (os.killpg if group else os.kill)(self.pid, number)

    def code(self, seconds: float = LIMIT) -> int:
        """Its exit code, -N after signal N."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.send(signal.SIGKILL, group=True)
            raise AssertionError(f'still running after {seconds} s: {self.text()}')
        return self.process.exitcode

    def workers(self) -> list[int]:
        """The processes that it has started."""
        return [int(pid) for pid in Path(f'/proc/{self.pid}/task/{self.pid}/children').read_text().split()]


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


def ranks(folder: Path, count: int, *args, tool: str = 'train', kill_at: str | None = None) -> list[Run]:
    """tools/`tool`.py as torchrun would start it, or alone, each rank printing to `folder`/rank_<i>."""
    env = dict(WORLD_SIZE=str(count), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()))
    launcher = ('--launcher', 'pytorch' if count > 1 else 'none')
    return [Run(folder / f'rank_{rank}', tool, *args, *launcher, RANK=str(rank), LOCAL_RANK=str(rank),
                kill_at=kill_at, **env) for rank in range(count)]


def trained(config: Path, work_dir: Path, count: int = 1, kill_at: str | None = None,
            kill_after: float | None = None) -> bool:
    """tools/train.py CONFIG --resume in `count` ranks; False if it was killed before it was done.

    It kills itself (`kill_at`, see `Run`), or is killed, with all that it has started, `kill_after` seconds from now.
    """
    runs = ranks(work_dir.parent, count, config, '--work-dir', work_dir, '--resume', kill_at=kill_at)
    end = time.monotonic() + (kill_after or LIMIT)
    while any(run.process.is_alive() for run in runs) and not any(run.process.exitcode for run in runs):
        if time.monotonic() > end:
            break
        time.sleep(0.002)
    hung = kill_after is None and time.monotonic() > end
    for run in runs:
        try:
            run.send(signal.SIGKILL, group=True)
        except ProcessLookupError:
            pass
    codes, said = [run.code() for run in runs], ''.join(run.text() for run in runs)
    assert not hung and (-signal.SIGKILL in codes or codes == [0] * count), said
    return -signal.SIGKILL not in codes
