"""The keys `data_errors` and `max_data_errors`."""
from mmengine.config import Config

from mmincubation.datasets.records import LIMIT
from mmincubation.errors import ConfigError

POLICIES = ('raise', 'skip')


def check_policy(cfg: Config) -> None:
    """Look at the two keys before anything is built.

    Raises:
        ConfigError: `data_errors` or `max_data_errors` has a wrong value.
    """
    policy, limit = cfg.get('data_errors', 'raise'), cfg.get('max_data_errors', LIMIT)
    if policy not in POLICIES:
        raise ConfigError(f'data_errors={policy!r}: choose one of {", ".join(POLICIES)}')
    if not isinstance(limit, int) or limit < 1:
        raise ConfigError(f'max_data_errors={limit!r}: give a number of samples, 1 or more')
