"""Records of skipped samples, in files to which all ranks and workers can add."""
import json
from pathlib import Path

LIMIT = 100  # samples; more of them mean a fault of the whole data set
LISTED = 10  # in the log and in result.json; the files in the work dir have all
RECORDS = 'data_errors.rank*.jsonl'


def remove_records(folder: str) -> None:
    """Remove the records of an earlier run from a folder, before a new run."""
    for path in Path(folder).glob(RECORDS):
        path.unlink()


def add_record(folder: str, rank: int, record: dict) -> None:
    """Append a line to the rank's file, `data_errors.rank<r>.jsonl`. Its workers may do so at the same time."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    # Appending a line by one unbuffered write keeps lines of several workers apart.
    with open(Path(folder) / RECORDS.replace('*', str(rank)), 'ab', buffering=0) as file:
        file.write(json.dumps(record).encode() + b'\n')


def read_records(*folders: str | Path) -> list[dict]:
    """Return the records of all ranks in these work dirs, each sample once, sorted by data set and index."""
    found = {}
    for path in (path for folder in folders for path in sorted(Path(folder).glob(RECORDS))):
        for line in path.read_bytes().splitlines():
            try:
                record = json.loads(line)
                found.setdefault((record['data'], record['index']), record)
            except (ValueError, TypeError, KeyError):  # a line that a kill cut short
                continue
    return [found[key] for key in sorted(found)]


def summary_of(records: list[dict]) -> str:
    """Return the first records in words, and the number of the others."""
    more = f' and {len(records) - LISTED} more' if len(records) > LISTED else ''
    return '; '.join(record['fault'] for record in records[:LISTED]) + more
