"""The keys `data_errors` and `max_data_errors`."""
from collections.abc import Iterator

from mmengine.config import Config

from mmincubation.datasets.records import LIMIT

POLICIES = ('raise', 'skip')


def policy_problems(cfg: Config) -> Iterator[str]:
    """What is wrong with the two keys."""
    policy, limit = cfg.get('data_errors', 'raise'), cfg.get('max_data_errors', LIMIT)
    if policy not in POLICIES:
        yield f'data_errors={policy!r}: choose one of {", ".join(POLICIES)}'
    if not isinstance(limit, int) or limit < 1:
        yield f'max_data_errors={limit!r}: give a number of samples, 1 or more'
