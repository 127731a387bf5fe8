"""Compare two checkpoints image by image on one detection or segmentation set: python tools/compare.py A B."""
import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='Exit code 2: a file cannot be used, or the two are not about the same images, '
        'classes and truth.')
    for name in 'ab':
        parser.add_argument(name, metavar=name.upper(), help='a per_image.json.gz, or the work dir of a training or a '
                            'test that has one')
    parser.add_argument('--format', choices=['text', 'json'], default='text', help='default: %(default)s')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    from mmincubation.errors import clean
    from mmincubation.leaderboard.compare import compare_files
    from mmincubation.leaderboard.compare_text import to_text
    from mmincubation.result import ResultError

    try:
        found = compare_files(args.a, args.b)
    except ResultError as error:
        print(f'error: {clean(str(error))}', file=sys.stderr)
        return 2
    print(json.dumps(found, indent=2) + '\n' if args.format == 'json' else to_text(found, args.a, args.b), end='')
    return 0


if __name__ == '__main__':
    from mmincubation.errors import quiet_interrupt
    quiet_interrupt()
    sys.exit(main())
