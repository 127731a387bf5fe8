"""Do many runs as one job, and print their table: python tools/suite.py WEIGHTS... or python tools/suite.py FILE.py"""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='docs/guides/suite.md has examples. The same command goes on with a stopped suite. '
        'Exit code 0: all runs are finished; 1: one has failed, or --dry-run misses something; 2: wrong command.')
    parser.add_argument('what', nargs='+', metavar='WEIGHTS', help='weight files that tools/convert.py reads, or '
                        'timm:NAME; NAME=... names the method; or one suite file (.py)')
    parser.add_argument('--tasks', metavar='T,T', help='of weights: some of coco, ade20k, probe (default: all)')
    parser.add_argument('--seeds', type=int, metavar='N', help='of weights: trainings of each (default: 1)')
    parser.add_argument('--model', choices=['vit_b', 'vit_l', 'vit_h'], help='of weights: their size (default: found)')
    parser.add_argument('--data', nargs='+', metavar='TASK=DIR', help='of weights: where the data of a task are '
                        '(default: coco=data/coco ade20k=data/ade/ADEChallengeData2016 probe=data/imagenet)')
    parser.add_argument('--work-dir', metavar='DIR', help="where runs and table go (default: the suite file's, else "
                        'work_dirs/suite)')
    parser.add_argument('--jobs', type=int, metavar='N', help='runs at the same time (default: as the GPUs hold, or 1)')
    parser.add_argument('--gpus', type=int, default=1, metavar='N', help='GPUs of each run (default: %(default)s)')
    parser.add_argument('--dry-run', action='store_true', help='say what would run, its cost, and what is missing')
    parser.add_argument('--print', action='store_true', help='print the commands for Slurm')
    return parser.parse_args(argv)


if __name__ == '__main__':
    from mmincubation.errors import quiet_interrupt
    quiet_interrupt()
    args = parse_args()
    from mmincubation.suite.main import main  # after parsing: --help must not wait for torch
    sys.exit(main(args))
