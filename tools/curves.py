"""Draw loss, learning rate and metrics of runs, each step once, or write them as a table."""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='Exit code 1: a folder has no run, 2: nothing could be drawn.')
    parser.add_argument('folders', nargs='+', type=Path, metavar='DIR', help='work dirs of runs, or folders of them')
    parser.add_argument('--out', type=Path, metavar='FILE', help='.png, .svg or .csv (default: curves.png in the first '
                                                                 'DIR)')
    parser.add_argument('--keys', nargs='+', metavar='KEY', help='what to draw, as it is logged (default: loss, lr and '
                                                                 'the metrics of the leaderboard)')
    return parser.parse_args(argv)


if __name__ == '__main__':
    from mmincubation.errors import quiet_interrupt
    quiet_interrupt()
    args = parse_args()
    from mmincubation.leaderboard.curves import main
    sys.exit(main(args))
