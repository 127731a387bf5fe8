"""Would this config train here? Checks config, data, weights, recipe, memory, time and disk; trains nothing."""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='Exit code 0: it would run; 1: problems, all listed; 2: wrong command.')
    parser.add_argument('config', help='config file')
    parser.add_argument('--gpus', type=int, default=1, help='GPUs of the run (default: %(default)s)')
    parser.add_argument('--img-per-s', type=float, metavar='X', help='images a second of training on one GPU')
    parser.add_argument('--full', action='store_true', help='look at every image and mask, not at a sample')
    parser.add_argument('--work-dir', help='where the run would write (default: work_dirs/CONFIG)')
    parser.add_argument('--cfg-options', nargs='+', action='extend', metavar='K=V',
                        help='override settings of the config')
    return parser.parse_args()


if __name__ == '__main__':
    from mmincubation.errors import quiet_interrupt
    quiet_interrupt(at_once=True)
    args = parse_args()
    from mmincubation.check.run import main  # after parsing: --help must not wait for torch
    sys.exit(main(args))
