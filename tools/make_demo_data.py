#!/usr/bin/env python
"""Write the demo data (digits over photographs) that the demo configs read."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--root', default='data/demo', help='folder to write (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='seed of every random choice (default: %(default)s)')
    args = parser.parse_args()
    from mmincubation.demo.data import write_demo_data  # after parsing: --help need not wait for these imports

    try:
        written = write_demo_data(args.root, args.seed)
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(f'demo data written to {args.root}' if written else f'demo data in {args.root} kept: complete and unchanged')
    return 0


if __name__ == '__main__':
    from mmincubation.errors import quiet_interrupt
    quiet_interrupt()
    sys.exit(main())
