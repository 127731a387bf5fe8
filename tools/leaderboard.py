"""Print the table of all runs and write it as leaderboard.md and leaderboard.html."""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='Exit code 1: a broken file was left out; 2: there is no result.')
    parser.add_argument('work_dirs', nargs='?', type=Path, default=Path('work_dirs'), help='folder of the runs')
    parser.add_argument('--out', type=Path, help='folder for the files (default: the folder of the runs)')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    from mmincubation.leaderboard.board import make_leaderboard
    from mmincubation.leaderboard.collect import clean

    args = parse_args(argv)
    text, problems, replaced = make_leaderboard(args.work_dirs, args.out or args.work_dirs)
    print(text, end='')
    for line in [*replaced, *problems]:
        print(clean(line), file=sys.stderr)
    if not text and not problems:
        print(f'no result.json below {args.work_dirs}; run tools/train.py CONFIG first', file=sys.stderr)
        return 2
    return 1 if problems else 0


if __name__ == '__main__':
    from mmincubation.errors import quiet_interrupt
    quiet_interrupt()
    sys.exit(main())
