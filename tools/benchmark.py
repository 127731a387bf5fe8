"""Time, memory and FLOP/s of training steps, ours beside a plain reference: python tools/benchmark.py --baseline."""
import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def positive(text: str) -> int:
    """A number from 1 on."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f'{number} is less than 1')
    return number


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='Under torchrun the steps are distributed, and rank 0 reports. '
        'docs/measurements/performance.md explains the table. Exit code 2: wrong command or config.')
    parser.add_argument('configs', nargs='*', metavar='CONFIG',
                        help='config files (default: ViT-B incubation and E2E, Mask R-CNN and UperNet on it)')
    parser.add_argument('--phases', nargs='+', metavar='NAME',
                        help='of incubations: meta, module_0, ..., modules (all jointly), finetune (default: all)')
    parser.add_argument('--batch-size', type=positive, metavar='N',
                        help="images a step and rank (default: the config's; on a CPU 8; dense tasks 1 or 2, smaller)")
    parser.add_argument('--baseline', action='store_true', help="the public code's plain step too, timed in turn")
    parser.add_argument('--repeats', type=positive, default=5, metavar='N', help='turns (default: %(default)s)')
    parser.add_argument('--data', action='store_true', help='measure the wait for the real loader, on generated JPEGs')
    parser.add_argument('--device', choices=['auto', 'cpu', 'cuda'], default='auto')
    parser.add_argument('--out', type=Path, metavar='FILE', help='default: results/benchmarks/DEVICE.json')
    return parser.parse_args(argv)


if __name__ == '__main__':
    from mmincubation.errors import quiet_interrupt
    quiet_interrupt()
    args = parse_args()
    os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # the profiler, which measures memory, reports its every start
    from mmincubation.benchmark.run import main  # after parsing: --help must not wait for torch
    sys.exit(main(args))
