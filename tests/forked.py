"""Runs of the tools in forked processes, which need not import anything: real signals and exit codes in a second."""
import importlib.util
import multiprocessing
import os
import re
import socket
import sys
import time
from pathlib import Path

from mmincubation.engine import launch

ROOT = Path(__file__).resolve().parents[1]


class Slow:
    """A transform that changes nothing and takes its time."""

    def __init__(self, seconds: float):
        self.seconds = seconds

    def __call__(self, image):
        time.sleep(self.seconds)
        return image


class Run:
    """tools/`tool`.py with arguments, in a process group of its own; `text()` is what it has printed so far."""

    def __init__(self, out: Path, tool: str, *args, **env):
        self.out = out
        self.process = multiprocessing.get_context('fork').Process(target=self._main, args=(tool, args, env))
        self.process.start()
        self.pid = self.process.pid

    def _main(self, tool: str, args: tuple, env: dict) -> None:
        os.setsid()
        file = os.open(self.out, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout = sys.stderr = open(1, 'w', buffering=1, closefd=False)
        os.environ.update(env)
        sys.argv = [tool, *map(str, args)]
        spec = importlib.util.spec_from_file_location('tool', ROOT / f'tools/{tool}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        multiprocessing.current_process()._config['daemon'] = False  # it has workers of its own
        sys.exit(getattr(launch, tool)(module.parse_args()))

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

    def code(self, seconds: float = 60.) -> int:
        """Its exit code, -N after signal N."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            os.killpg(self.pid, 9)
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


def ranks(folder: Path, count: int, *args) -> list[Run]:
    """tools/train.py as torchrun would start it, each rank printing to `folder`/rank_<i>."""
    port = free_port()
    return [Run(folder / f'rank_{rank}', 'train', *args, '--launcher', 'pytorch', RANK=str(rank), LOCAL_RANK=str(rank),
                WORLD_SIZE=str(count), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port)) for rank in range(count)]
