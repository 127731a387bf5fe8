"""Write a model card (README.md) of a run, and its result as the Hugging Face hub reads it."""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('run', type=Path, metavar='RUN', help='folder of a run, or its result.json')
    parser.add_argument('--dataset-id', metavar='ORG/NAME', help='benchmark on the hub, for .eval_results')
    parser.add_argument('--task-id', metavar='NAME', help='its task, as its eval.yaml names it')
    parser.add_argument('--out', type=Path, metavar='DIR', help='folder for the files (default: that of the result)')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Exit code 0, or 2 after one line on stderr."""
    from mmincubation.leaderboard.card import make_files, result_path, write_files
    args = parse_args(argv)
    try:
        files = make_files(args.run, args.dataset_id, args.task_id)
        written = write_files(files, args.out or result_path(args.run).parent)
    except (ValueError, OSError) as error:
        print(f'card.py: error: {error}', file=sys.stderr)
        return 2
    print('\n'.join(map(str, written)))
    if len(written) == 1:
        print('no .eval_results: that file needs a benchmark of the hub, --dataset-id ORG/NAME --task-id NAME')
    return 0


if __name__ == '__main__':
    from mmincubation.errors import quiet_interrupt
    quiet_interrupt()
    sys.exit(main())
