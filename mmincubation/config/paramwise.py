"""What `paramwise_cfg` may say to the `ViTOptimWrapperConstructor`; read before anything is built."""
from collections.abc import Iterator
from numbers import Real

from .types import OWN_KEYS, unknown_key

NO_DECAY = ('pos_embed', 'cls_token', 'reg_token', 'dist_token', 'rope.freqs')  # as timm's ViTs say
KEYS = {'layer_decay', 'no_decay', 'custom_keys'}
FACTORS = {'lr_mult', 'decay_mult'}


def paramwise_problems(paramwise: dict | None, place: str) -> Iterator[str]:
    """One line for each mistake; `place` is the dict's dotted name in the config."""
    if not isinstance(paramwise, dict | None):
        yield f'{place}={paramwise!r}: give a dict'
        return
    given = dict(paramwise or {})
    unknown = [key for key in given if key not in KEYS | OWN_KEYS]
    yield from (unknown_key(f'{place}.{key}', KEYS, 'ViTOptimWrapperConstructor') for key in unknown)
    if not (_is_number(decay := given.get('layer_decay', 1.)) and 0 < decay <= 1):
        yield f'{place}.layer_decay={decay!r}: give a number above 0 and at most 1 (1: one rate for all layers)'
    names = given.get('no_decay', NO_DECAY)
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name for name in names):
        yield f'{place}.no_decay={names!r}: give a list of parts of parameter names'
    yield from _custom_problems(given.get('custom_keys', {}), f'{place}.custom_keys')


def _custom_problems(keys: dict, place: str) -> Iterator[str]:
    if not isinstance(keys, dict) or not all(isinstance(factors, dict) for factors in keys.values()):
        yield f'{place}={keys!r}: give {{part of a name: dict(lr_mult=..., decay_mult=...)}}'
        return
    for key, factors in keys.items():
        for factor, value in factors.items():
            if factor not in FACTORS | OWN_KEYS:
                yield unknown_key(f'{place}[{key!r}].{factor}', FACTORS, 'a custom key')
            elif factor in FACTORS and not (_is_number(value) and value >= 0):
                yield f'{place}[{key!r}].{factor}={value!r}: give a number, 0 or more'


def _is_number(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
