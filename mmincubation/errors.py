"""The errors that the tools report as one line on stderr and an exit code."""
import errno
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Exit codes beside 0 (done), 1 (an unforeseen error) and 2 (an unusable command, config, file, sample or disk).
DIVERGED = 70  # a loss, a gradient or a weight is not finite; the same command would end there again
PROCESS_LOST = 71  # a loader's worker or another rank died; the same command with --resume goes on
PREEMPTED = 75  # stopped by SIGTERM, SIGUSR1 or SIGHUP, as EX_TEMPFAIL of sysexits.h; with --resume it goes on
INTERRUPTED = 130  # stopped by Ctrl-C, as a shell counts it: a person did that, so no scheduler should begin it anew

GONE = (errno.EPIPE, errno.EIO)  # of writing to a pipe, or a terminal, that nobody reads any more


class ConfigError(ValueError):
    """A config cannot be run; the message has one line for each mistake."""


class CheckpointError(ValueError):
    """A weight file cannot be used; the message names the file and the remedy."""


class DataError(ConfigError):
    """A sample or a whole data set cannot be used; the message is one line that names it."""

    def __init__(self, text: str):
        # A loader raises a worker's error again with its traceback as text, of which the last line is the message.
        super().__init__(text.rstrip().rpartition('\n')[2].removeprefix(f'{__name__}.DataError: '))


class Stop(Exception):
    """End a run with one line on stderr and `exit_code`."""
    exit_code = 1


class Preempted(Stop):
    """SIGTERM, SIGUSR1 or SIGHUP arrived; the run has written a checkpoint of where it stopped."""
    exit_code = PREEMPTED


class Interrupted(Preempted):
    """Ctrl-C (SIGINT) arrived; the run has written a checkpoint of where it stopped."""
    exit_code = INTERRUPTED


class DivergenceError(Stop):
    """A loss, a gradient or a weight is not finite; it was not saved."""
    exit_code = DIVERGED


class ProcessLost(Stop):
    """A worker of a loader, or another rank, died."""
    exit_code = PROCESS_LOST


def clean(text: str) -> str:
    """Return the text on one line, without characters that could control a terminal or are invisible."""
    return ''.join(char if char.isprintable() else '?' for char in text)


def one_line(error: BaseException) -> str:
    """Return an error of other code in one line: its type, the first line of its message, and where it was raised."""
    if isinstance(error.__cause__, ImportError):  # of custom_imports
        error = error.__cause__
    text = str(error)
    if isinstance(error, KeyError) and ' ' in text:  # a sentence, to which str adds quotes; else a key
        text = str(error.args[0])
    text = text.strip().splitlines()
    frames = [f for f in traceback.extract_tb(error.__traceback__)
              if not {'torch', 'registry', 'contextlib'} & set(_parts(f)) and not f.name.startswith('__torch_')]
    at = f' ({"/".join(_parts(frames[-1])[-2:])}.py:{frames[-1].lineno})' if frames else ''
    return f'{type(error).__name__}: {text[0] if text else ""}{at}'


def _parts(frame: traceback.FrameSummary) -> tuple[str, ...]:
    return Path(frame.filename).with_suffix('').parts


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Turn an error of the code inside, which a config or a command has caused, into one line that names `place`.

    Errors that are written for users pass unchanged.

    Raises:
        ConfigError: the code inside raised another exception.
    """
    try:
        yield
    except (ConfigError, CheckpointError, Stop, MemoryError):
        raise
    except Exception as error:  # other people's code raises anything
        raise ConfigError(f'{place}: {one_line(error)}') from error


def quiet_interrupt(at_once: bool = False) -> None:
    """Let Ctrl-C end this process with one line instead of a traceback and, in a shell, exit code 130.

    What the process prints from now on may find no reader: after Ctrl-C on `tool | tee log`, tee is gone first.

    A tool that writes files cleans up first. `at_once` is for work that leaves nothing: imports, above all, may swallow
    the exception that Ctrl-C is to Python, and go on with half of a package.
    """
    if at_once and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # ignored: a script has started `tool &`
        signal.signal(signal.SIGINT, end_at_once)
    for name in ('stdout', 'stderr'):
        if (stream := getattr(sys, name)) is not None and not isinstance(stream, Unheard):
            setattr(sys, name, Unheard(stream))
    usual = sys.excepthook

    def report(kind, error, trace) -> None:
        if issubclass(kind, KeyboardInterrupt):
            print('Interrupted: stopped by Ctrl-C', file=sys.stderr)
        else:
            usual(kind, error, trace)

    sys.excepthook = report


def end_at_once(_number: int, _frame) -> None:
    """Handle a signal by ending the process, where nothing has begun that could be lost."""
    say_at_once('Interrupted: stopped by Ctrl-C, nothing is lost')
    os._exit(INTERRUPTED)


def say_at_once(text: str) -> None:
    """Write a line to stderr from the handler of a signal, if anybody can still read it."""
    with suppress(OSError):
        os.write(2, f'{text}\n'.encode())


class Unheard:
    """A stream whose reader may be gone: the work goes on without what nobody can read. A full disk is an error."""

    def __init__(self, stream):
        self._stream = stream

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write as the stream does; without a reader, do nothing."""
        with _unless_gone():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush as the stream does; without a reader, do nothing."""
        with _unless_gone():
            self._stream.flush()


@contextmanager
def _unless_gone() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in GONE:
            raise
