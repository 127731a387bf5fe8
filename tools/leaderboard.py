"""Print the table of all runs below folders, and write it as leaderboard.md and leaderboard.html."""
import argparse
import sys
from glob import glob
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=(
        'Exit code 1: a broken file was left out, or a table is stale; 2: there is no result, or a wrong option.'))
    parser.add_argument('sources', nargs='*', metavar='DIR', type=Path, default=[Path('work_dirs')],
                        help='folders of runs, single result.json files, or reported.yaml files')
    parser.add_argument('--format', choices=['html', 'md', 'csv', 'json', 'latex'], help='print this form alone')
    parser.add_argument('--baseline', metavar='METHOD', help='what others are compared with (default: e2e, else the '
                                                             'first by name)')
    parser.add_argument('--with-paper', action='store_true', help='add the numbers of the paper, marked *')
    parser.add_argument('--check', nargs='*', metavar='FILE', type=Path, help='fail if a table in FILE, of the first '
                        'DIR or a folder below it, is stale (default: README.md and docs/)')
    parser.add_argument('--update', nargs='*', metavar='FILE', type=Path, help='make these tables anew')
    parser.add_argument('--out', type=Path, help='folder for the files (default: the first DIR)')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    from mmincubation.errors import clean
    from mmincubation.leaderboard.board import in_format, make_board, write_board
    from mmincubation.leaderboard.committed import PageError, check, pages_with_tables, update
    from mmincubation.leaderboard.versus import UnknownBaseline

    args, stale = parse_args(argv), []

    def sections_of(place: Path):
        if place.resolve() == args.sources[0].resolve():
            return board.sections
        return make_board(sorted(map(Path, glob(str(place)))) or [place], args.baseline, args.with_paper).sections

    checked, updated = ([] if given is None else given or pages_with_tables() for given in (args.check, args.update))
    try:
        board = make_board(args.sources, args.baseline, args.with_paper)
        for page in checked if board.sections else ():
            stale += check(page, args.sources[0], sections_of)
        for page in updated if board.sections else ():
            update(page, args.sources[0], sections_of)
    except (UnknownBaseline, PageError) as error:
        print(clean(str(error)), file=sys.stderr)
        return 2
    for line in [*board.copies, *board.problems, *stale]:
        print(clean(line), file=sys.stderr)
    if not board.sections:
        if not board.problems:
            print(f'no result.json below {", ".join(map(str, args.sources))}; run tools/train.py CONFIG first',
                  file=sys.stderr)
        return 1 if board.problems and all(source.exists() for source in args.sources) else 2
    for page in checked:
        print(f'{page}: compared with the results of {args.sources[0]}')
    if args.check is None and args.update is None:
        print(in_format(board, args.format), end='')
        if not args.format:
            first = args.sources[0]
            write_board(board, args.out or (first if first.is_dir() else Path()))
    return 1 if board.problems or stale else 0


if __name__ == '__main__':
    from mmincubation.errors import quiet_interrupt
    quiet_interrupt()
    sys.exit(main())
