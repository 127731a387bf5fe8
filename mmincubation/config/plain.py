"""Names in place of the classes of a config, so that configs of all styles are read and stored alike."""
import os
from types import ModuleType
from typing import Any

import torch
from mmengine.config import Config
from mmengine.config.lazy import LazyAttr, LazyObject
from mmengine.utils import import_modules_from_strings

from mmincubation.errors import ConfigError

from .signatures import SCOPES, name_of

NAMED = ('type', 'constructor', 'ema_type')  # keys whose value mmengine takes as a class or as its name


def without_classes(cfg: Config) -> Config:
    """Return `cfg` with a name in place of each class that is a type; one without classes is returned as it is.

    A path that begins with `~/` is completed too. mmengine's pure Python style (`read_base()`) has classes; what such a
    config imports is left out, and if it names no default scope it gets the model's.

    Raises:
        ConfigError: a class or a function is no type, or has no name from which it can be found again.
        ImportError: what the config imports does not exist.
    """
    imported, model = getattr(cfg, '_imported_names', None), cfg.get('model')
    changed = {} if imported is None else {'_imported_names': ''}
    kind = model.get('type') if isinstance(model, dict) else None
    package = str(getattr(kind, '__module__', None)).partition('.')[0]
    if not cfg.get('default_scope') and package in SCOPES[2:]:
        cfg.default_scope = package
    plain = {key: _plain(value, key, cfg.get('default_scope') or 'mmengine', changed) for key, value in cfg.items()
             if key not in (imported or ()) and not _is_object(value)}
    if not changed:
        return cfg
    if imported is not None and plain.get('custom_imports'):  # mmengine follows them in its other style alone
        import_modules_from_strings(**plain['custom_imports'])
    return Config(plain, cfg_text=cfg.text, filename=cfg.filename, env_variables=cfg.env_variables)


def _plain(value: Any, place: str, scope: str, changed: dict) -> Any:
    """`value` at a dotted place, with names for classes; they are added to `changed`."""
    if isinstance(value, LazyAttr | LazyObject):  # in a list; those in dicts were built when they were read
        value = value.build()
    if isinstance(value, dict):
        return {key: _plain(inner, f'{place}.{key}', scope, changed) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(inner, f'{place}.{i}', scope, changed) for i, inner in enumerate(value))
    if isinstance(value, str) and value.startswith('~/'):
        changed[place] = os.path.expanduser(value)
    elif isinstance(value, torch.dtype):
        changed[place] = str(value).removeprefix('torch.')
    elif _is_object(value):
        changed[place] = _named(value, place, scope)
    return changed.get(place, value)


def _is_object(value: Any) -> bool:
    return callable(value) or isinstance(value, ModuleType)


def _named(value: Any, place: str, scope: str) -> str:
    nameable = place.rpartition('.')[2] in NAMED and hasattr(value, '__qualname__')
    name = name_of(value, scope) if nameable else None
    if name is None:
        raise ConfigError(f'{place} is {value!r}, which a run cannot store; a config holds numbers, text, lists, dicts '
                          'and, as a type, classes that can be imported')
    return name
