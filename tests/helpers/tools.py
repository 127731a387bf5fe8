"""The tools as commands, with what they print and return."""
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.helpers.forked import CONTEXT, LIMIT, redirect
from tests.helpers.paths import ROOT


def fresh(name: str, *args, **env) -> subprocess.CompletedProcess:
    """A tool or shell script in a process of its own, which imports everything anew."""
    command = [sys.executable, str(ROOT / 'tools' / name)] if name.endswith('.py') else [str(ROOT / 'tools' / name)]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
    return subprocess.run([*command, *map(str, args)], cwd=ROOT, capture_output=True, text=True, timeout=300,
                          env=dict(os.environ, PATH=path, OMP_NUM_THREADS='1', **env))


def main(folder: str, name: str, args: tuple, cwd: Path) -> None:
    """What the fork of `tool` does."""
    redirect(Path(folder, 'out'), Path(folder, 'err'))
    run(name, args, cwd)


def main_into(file: str, name: str, args: tuple) -> None:
    """What the fork of a `Forked` does."""
    redirect(Path(file), Path(file))
    run(name, args)


def run(name: str, args: tuple, cwd: Path = ROOT) -> None:
    """A tool in this process."""
    os.chdir(cwd)
    os.environ['OMP_NUM_THREADS'] = '1'
    sys.argv = [str(ROOT / 'tools' / name), *map(str, args)]
    runpy.run_path(sys.argv[0], run_name='__main__')


def tool(name: str, *args, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """The same for a Python tool in a fork of a process that has imported everything: seconds less."""
    with tempfile.TemporaryDirectory() as folder:
        process = CONTEXT.Process(target=main, args=(folder, name, args, cwd))
        process.start()
        process.join(LIMIT)
        if process.exitcode is None:
            process.kill()
            raise AssertionError(f'{name} {args}: still running after {LIMIT} s')
        said = (Path(folder, kind).read_text() for kind in ('out', 'err'))
        return subprocess.CompletedProcess([name, *args], process.exitcode, *said)


class Forked:
    """In the place of `subprocess.Popen`: the Python tool of a command in such a fork."""

    def __init__(self, command: list[str], stdout, **_):
        tool, *args = command[1:]
        self.process = CONTEXT.Process(target=main_into, args=(stdout.name, Path(tool).name, tuple(args)))
        self.process.start()
        self.pid = self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def refused(done: subprocess.CompletedProcess) -> str:
    """The one line of a refusal."""
    lines = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert done.returncode == 2 and len(lines) == 1 and 'Traceback' not in done.stderr, done.stderr
    return lines[0]
