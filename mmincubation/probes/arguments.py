"""The arguments of tools/probe.py, which a suite reads before it runs one."""
import argparse
import json
from ast import literal_eval
from pathlib import Path

from mmincubation.errors import ConfigError

BESIDE = ('weights', 'train', 'val', 'probes', 'workers', 'out')  # arguments that are not among a result's `options`


def field(text: str) -> tuple[str, object]:
    """`num_heads=12` to ('num_heads', 12)."""
    name, _, value = text.partition('=')
    if not value:
        raise argparse.ArgumentTypeError(f'{text!r}: write it as FIELD=VALUE')
    try:
        return name, literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def share(text: str) -> float:
    """A number above 0 and not above 1."""
    if not 0 < (number := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f'{number} is not above 0 and up to 1')
    return number


def count(text: str) -> int:
    """A number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'{text!r} is no whole number from 0 on')
    return int(text)


def probe_parser(description: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(description=description, epilog='docs/guides/probes.md says what is measured.')
    parser.add_argument('weights', metavar='WEIGHTS', help='a file that tools/convert.py reads')
    for name in ('train', 'val'):
        parser.add_argument(f'--{name}', required=True, metavar='DIR', help='folders of classes, or an Arrow folder')
    parser.add_argument('--probes', nargs='+', choices=['knn', 'linear'], default=['knn', 'linear'],
                        help='default: both')
    parser.add_argument('--out', metavar='WORK_DIR', help='default: work_dirs/probes/METHOD_HASH_DATA_SETTINGS')
    parser.add_argument('--workers', type=count, default=4, metavar='N', help='processes that read (default: 4)')
    _add_names(parser)
    _add_features(parser)
    return parser


def _add_names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--method', metavar='NAME', help='name of the row (default: of the run that wrote the weights, '
                        'else of the file)')
    parser.add_argument('--model', metavar='NAME', help='name of the model (default: likewise, else of its size)')
    parser.add_argument('--seed', type=count, metavar='N',
                        help='of the weights, and of what is held out (default: likewise, else 0)')
    parser.add_argument('--data', metavar='NAME', help='name of the data in the tables (default: of the folder)')


def _add_features(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--arch', nargs='+', type=field, default=[], metavar='FIELD=VALUE',
                        help='what the file does not show (num_heads=12 norm_eps=1e-6), or another img_size')
    parser.add_argument('--prefix', metavar='WORDS', help='which ViT, if WEIGHTS holds several: teacher.backbone')
    parser.add_argument('--pool', choices=['token', 'avg'], help='the feature: the class token, or the mean of the '
                        "patches (default: what the file's head reads)")
    parser.add_argument('--crop-pct', type=share, default=0.875, metavar='X', help='share of the resized image that '
                        'the crop keeps; 1 for small images (default: %(default)s)')
    for name in ('mean', 'std'):
        parser.add_argument(f'--{name}', nargs=3, type=float, help='of RGB, 0 to 255 (default: what the file, or the '
                            "config beside it, says; else ImageNet's)")
    parser.add_argument('--columns', nargs=2, default=['image', 'label'], metavar=('IMAGE', 'LABEL'),
                        help='of an Arrow folder (default: image label)')
    parser.add_argument('--fraction', type=share, default=1., metavar='X', help='of the training images of each class')


def require_apart(train: str, val: str) -> None:
    """Refuse one folder for both: each image would be its own nearest neighbour.

    Raises:
        ConfigError: both are the same folder.
    """
    if Path(train).resolve() == Path(val).resolve():
        raise ConfigError(f'train and val are both {val}: each image would be its own neighbour; give other images '
                          'for one of them')


def probe_options(args: argparse.Namespace) -> dict[str, str]:
    """Return as JSON, by name, what a probe was given or has by default, beside weights and data."""
    return {key: json.dumps(value, default=str) for key, value in sorted(vars(args).items()) if key not in BESIDE}
