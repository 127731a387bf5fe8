"""Measure a ViT's features by k-NN and a linear probe: python tools/probe.py WEIGHTS --train DIR --val DIR."""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.convert import field
from tools.train import count


def share(text: str) -> float:
    """A number above 0 and not above 1."""
    if not 0 < (number := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f'{number} is not above 0 and up to 1')
    return number


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog='docs/guides/probes.md says what is measured.')
    parser.add_argument('weights', metavar='WEIGHTS', help='a file that tools/convert.py reads')
    for name in ('train', 'val'):
        parser.add_argument(f'--{name}', required=True, metavar='DIR', help='folders of classes, or an Arrow folder')
    parser.add_argument('--probes', nargs='+', choices=['knn', 'linear'], default=['knn', 'linear'],
                        help='default: both')
    parser.add_argument('--method', metavar='NAME', help='name of the row (default: of the run that wrote the weights, '
                        'else of the file)')
    parser.add_argument('--model', metavar='NAME', help='name of the model (default: likewise, else of its size)')
    parser.add_argument('--seed', type=count, metavar='N',
                        help='of the weights, and of what is held out (default: likewise, else 0)')
    parser.add_argument('--out', metavar='WORK_DIR', help='default: work_dirs/probes/METHOD_HASH_DATA_SETTINGS')
    parser.add_argument('--data', metavar='NAME', help='name of the data in the tables (default: of the folder)')
    parser.add_argument('--arch', nargs='+', type=field, default=[], metavar='FIELD=VALUE',
                        help='what the file does not show (num_heads=12 norm_eps=1e-6), or another img_size')
    parser.add_argument('--prefix', metavar='WORDS', help='which ViT, if WEIGHTS holds several: teacher.backbone')
    parser.add_argument('--pool', choices=['token', 'avg'], help='the feature: the class token, or the mean of the '
                        "patches (default: what the file's head reads)")
    parser.add_argument('--crop-pct', type=share, default=0.875, metavar='X', help='share of the resized image that '
                        'the crop keeps; 1 for small images (default: %(default)s)')
    parser.add_argument('--mean', nargs=3, type=float, default=[123.675, 116.28, 103.53], help='of RGB, 0 to 255')
    parser.add_argument('--std', nargs=3, type=float, default=[58.395, 57.12, 57.375], help='of RGB, 0 to 255')
    parser.add_argument('--columns', nargs=2, default=['image', 'label'], metavar=('IMAGE', 'LABEL'),
                        help='of an Arrow folder (default: image label)')
    parser.add_argument('--fraction', type=share, default=1., metavar='X', help='of the training images of each class')
    parser.add_argument('--workers', type=count, default=4, metavar='N', help='processes that read (default: 4)')
    return parser.parse_args(argv)


if __name__ == '__main__':
    from mmincubation.errors import quiet_interrupt
    quiet_interrupt()
    args = parse_args()
    from mmincubation.probes.run import main  # after parsing: --help must not wait for torch
    sys.exit(main(args))
