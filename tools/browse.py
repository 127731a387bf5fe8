"""Show what the model of a config sees, after all augmentation, as one HTML page."""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog='Exit code 2: nothing could be shown.')
    parser.add_argument('config', help='config file')
    parser.add_argument('--out', type=Path, metavar='FILE.html',
                        help='the page (default: work_dirs/CONFIG/browse_SPLIT.html)')
    parser.add_argument('--num', type=int, default=16, metavar='N', help='images (default: %(default)s)')
    parser.add_argument('--split', choices=['train', 'val'], default='train', help='default: %(default)s')
    parser.add_argument('--seed', type=int, metavar='N', help="of all draws (default: the config's: the images are "
                                                              'those of the first steps of its run)')
    return parser.parse_args(argv)


if __name__ == '__main__':
    from mmincubation.errors import quiet_interrupt
    quiet_interrupt(at_once=True)
    args = parse_args()
    from mmincubation.inference.browse import main  # after parsing: --help must not wait for torch
    sys.exit(main(args))
