"""tools/train.py in children of one process that has imported everything already, killed when a test says so."""
import importlib.util
import json
import math
import os
import pkgutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 60  # seconds, for a run that hangs


class Trainer:
    """A process that imports torch and `modules` once; each `train` is a fresh process all the same."""

    def __init__(self, *modules: str):
        self.server = subprocess.Popen(
            [sys.executable, '-m', 'tests.fork_server', *modules], cwd=ROOT, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, env=dict(os.environ, OMP_NUM_THREADS='1'))

    def train(self, *args, kill_after: float | None = None, kill_at: str | None = None, ranks: int = 1,
              port: int = 29641) -> dict:
        """Run `tools/train.py args`; returns its exit code (`code`, None if killed), `seconds` and `output`.

        `kill_after` seconds all its processes get SIGKILL; with `kill_at='module.function:n'` (or `:n:after`) it kills
        itself before, or after, its n-th call of that function.
        """
        order = dict(args=[str(a) for a in args], kill_after=kill_after, kill_at=kill_at, ranks=ranks, port=port)
        self.server.stdin.write(json.dumps(order) + '\n')
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self.server.stdin.close()
        self.server.wait(60)


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


def tool():
    """tools/train.py as a module."""
    spec = importlib.util.spec_from_file_location('train_tool', ROOT / 'tools/train.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def child(order: dict, rank: int, group: int, output) -> None:
    """One rank; does not return."""
    code = 1
    try:
        os.setpgid(0, group)
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.argv = ['tools/train.py', *order['args']]
        if order['ranks'] > 1:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(order['ranks']),
                              MASTER_ADDR='127.0.0.1', MASTER_PORT=str(order['port']))
            sys.argv += ['--launcher', 'pytorch']
        if order['kill_at']:
            suicide(order['kill_at'])
        from mmincubation.engine.launch import train
        code = train(tool().parse_args())
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def run(order: dict, output) -> dict:
    began, children, hung = time.monotonic(), [], False
    for rank in range(order['ranks']):
        pid = os.fork()
        if not pid:
            child(order, rank, children[0] if children else 0, output)
        children.append(pid)
        try:
            os.setpgid(pid, children[0])  # in both: whoever is first
        except (PermissionError, ProcessLookupError):
            pass
    codes = []
    while len(codes) < len(children):
        if time.monotonic() - began > (order['kill_after'] or LIMIT):
            hung = order['kill_after'] is None
            order['kill_after'] = math.inf
            os.killpg(children[0], signal.SIGKILL)
        pid, status = os.waitpid(-1, os.WNOHANG)
        codes += [os.waitstatus_to_exitcode(status)] if pid else []
        time.sleep(0 if pid else 0.002)
    output.seek(0)
    code = 'hung' if hung else None if -signal.SIGKILL in codes else max(codes, key=abs)
    return dict(code=code, seconds=time.monotonic() - began,
                output=output.read().decode(errors='replace')[-20000:])


def serve(modules: list[str]) -> None:
    """Answer orders from standard input until it ends."""
    import tempfile

    for module in ('mmincubation.engine.launch', *modules):
        importlib.import_module(module)
    for line in sys.stdin:
        with tempfile.TemporaryFile() as output:
            print(json.dumps(run(json.loads(line), output)), flush=True)


if __name__ == '__main__':
    serve(sys.argv[1:])
