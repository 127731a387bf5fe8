"""Make a folder to publish of a run's checkpoint: python tools/publish.py CHECKPOINT OUT."""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog='Exit code 2: nothing could be published.')
    parser.add_argument('checkpoint', type=Path, help='a .pth of a run; with its result.json beside it there is a card')
    parser.add_argument('out', type=Path, metavar='OUT', help='a new folder')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Exit code 0, or 2 after one line on stderr."""
    args = parse_args(argv)
    from mmincubation.inference.publish import publish  # after parsing: --help must not wait for torch
    try:
        files = publish(args.checkpoint, args.out)
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print('\n'.join(map(str, files)))
    if len(files) == 2:
        print('no card: there is no result.json beside the checkpoint')
    return 0


if __name__ == '__main__':
    from mmincubation.errors import quiet_interrupt
    quiet_interrupt()
    sys.exit(main())
