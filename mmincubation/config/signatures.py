"""What a config's `type` means and which keys it accepts, read from registries and signatures; nothing is built."""
import ast
import inspect
import re
import textwrap
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache, lru_cache
from importlib import import_module
from importlib.util import find_spec

from .packages import missing_package, needed, with_remedy

NUMBERS = {'int', 'float', 'Number', 'numbers', 'Tensor', 'torch', 'None', 'NoneType', 'Optional', 'Union', 'typing'}
SCOPES = ('mmengine', 'mmincubation', 'mmdet', 'mmseg')


def nearest(name: str, valid: dict[str, str]) -> str:
    """` (nearest: 'X')` to end a message with, or nothing; `valid` maps what is compared to what is shown."""
    match = get_close_matches(name, sorted(valid), 1)
    return f' (nearest: {valid[match[0]]!r})' if match else ''


@lru_cache
def _root_registries() -> tuple:
    for package in ('evaluator', 'runner', 'visualization'):  # their classes register on import
        import_module(f'mmengine.{package}')
    from mmengine.registry import Registry, root
    return tuple(value for value in vars(root).values() if isinstance(value, Registry))


def is_scope(name: str) -> bool:
    """Whether `name` is an installed package with registries."""
    try:
        return bool(name) and find_spec(name) is not None and find_spec(f'{name}.registry') is not None
    except (ModuleNotFoundError, ValueError):  # a module that is no package, or has no file
        return False


def _registries(scope: str) -> list[tuple[str, dict]]:
    """(kind, name -> class) of all the scope's registries; imports its package, as building from it would."""
    if scope != 'mmengine':
        import_module(f'{scope}.registry')
    found = []
    for root in _root_registries():
        registry = root if scope == 'mmengine' else root.children.get(scope)
        if registry is not None:
            registry.import_from_location()
            found.append((root.name, registry.module_dict))
    return found


def _made_by(obj: Callable) -> Callable:
    """The class, where a function is registered that imports and builds it on its first use (`function.makes()`)."""
    return obj.makes() if hasattr(obj, 'makes') else obj


def resolve(name: str, scope: str) -> list[tuple[str, Callable]]:
    """All (kind, class) that `type=name` can mean under this default scope; empty if none.

    The kind is the name of mmengine's root registry (`'hook'`, `'model'`), `''` for anything by its import path,
    `'op'` for what stock heads look up in `mmcv.ops`.
    """
    from mmengine.utils import get_object_from_string
    prefix, _, rest = name.partition('.')
    if not rest:
        found = [(kind, _made_by(names[name])) for s in {scope, 'mmengine'} for kind, names in _registries(s)
                 if name in names]
        if not found and (obj := getattr(import_module('mmcv.ops'), name, None)):  # RoI layers and nms are named so
            found = [('op', obj)]
        return found
    if is_scope(prefix):
        found = [(kind, _made_by(names[rest])) for kind, names in _registries(prefix) if rest in names]
        if found:
            return found
    obj = get_object_from_string(name)
    return [('', obj)] if callable(obj) else []


def name_of(obj: Callable, scope: str) -> str | None:
    """The shortest name that means a class or function, and nothing else, under this default scope; None if none does.

    It is the registered name, with its scope where it needs one, or the import path.
    """
    package = str(obj.__module__).partition('.')[0]
    owner = 'mmengine' if package in ('mmcv', 'torch') else package  # it registers their classes
    names = [name for _, known in _registries(owner) for name in known if known[name] is obj] if is_scope(owner) else []
    names = [obj.__name__, *names, *(f'{owner}.{name}' for name in names), f'{obj.__module__}.{obj.__qualname__}']
    return next((name for name in names if {made for _, made in resolve(name, scope)} == {obj}), None)


def unknown_type(name: str, scope: str) -> str:
    """Why `resolve` found nothing, with the nearest name."""
    prefix, _, rest = name.partition('.')
    if package := prefix if rest and find_spec(prefix) is None else needed(name):
        return missing_package(name, package)
    if rest and is_scope(prefix):
        valid = {n: f'{prefix}.{n}' for _, names in _registries(prefix) for n in names}
        return f'{name!r} is not registered{nearest(rest, valid)}'
    if rest:
        return f'{name!r} cannot be imported{_import_error(name)}'
    valid = {n: f'mmincubation.{n}' for _, names in _registries('mmincubation') for n in names}
    valid |= {n: n for s in ('mmengine', scope) for _, names in _registries(s) for n in names}
    return f'{name!r} is not registered under the default scope {scope!r}{nearest(name, valid)}'


def _import_error(name: str) -> str:
    """Why the module of a dotted name is not imported, as the end of a sentence."""
    try:
        import_module(name.rpartition('.')[0])
    except ImportError as error:
        return f': {with_remedy(str(error))}'
    return f': {name.rpartition(".")[0]} has no {name.rpartition(".")[2]}'


class _Kwargs(ast.NodeVisitor):
    """What an `__init__` does with its `**kwargs`: keys it takes out by hand, and where the rest goes."""

    def __init__(self, kwargs: str, owner: str):
        self.kwargs, self.owner = kwargs, owner
        self.taken, self.to_base, self.elsewhere = set(), False, False

    def visit_Call(self, node: ast.Call) -> None:
        func = node.func
        if not isinstance(func, ast.Attribute):
            return self.generic_visit(node)
        if self._is_kwargs(func.value) and func.attr in ('pop', 'get', 'setdefault'):
            return self._take(node.args[0])
        if func.attr == '__init__' and self._is_super(func.value):
            forwarded = [k for k in node.keywords if k.arg is None and self._is_kwargs(k.value)]
            self.to_base |= bool(forwarded)
            node.keywords = [k for k in node.keywords if k not in forwarded]
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        self.elsewhere |= self._is_kwargs(node)

    def _is_kwargs(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and node.id == self.kwargs

    def _is_super(self, node: ast.expr) -> bool:
        """`super()` or `super(Owner, ...)`; `super(Other, ...)` skips classes of the MRO."""
        plain = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'super'
        return plain and (not node.args or getattr(node.args[0], 'id', None) == self.owner)

    def _take(self, key: ast.expr) -> None:
        self.taken.add(getattr(key, 'value', None))
        self.elsewhere |= not isinstance(key, ast.Constant)


def _own_keys(init: Callable, owner: str) -> tuple[set[str], bool, bool]:
    """(keys that one `__init__` takes itself, whether the rest goes on to its base class, whether we cannot tell)."""
    parameters = inspect.signature(init).parameters.values()
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    rest = [p.name for p in parameters if p.kind is p.VAR_KEYWORD]
    if not rest:
        return names, False, False
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(init)))
    except (OSError, SyntaxError):
        return names, False, True
    use = _Kwargs(rest[0], owner)
    use.visit(tree)
    return names | use.taken, use.to_base, use.elsewhere or not use.to_base


@cache
def accepted(obj: Callable) -> tuple[frozenset[str], bool]:
    """The keyword arguments of a class, followed along its bases wherever `**kwargs` goes on to them, or a function.

    The flag says whether others may be accepted too: by builtins, decorated `__init__`s, and `**kwargs` that are handed
    to something else or dropped.
    """
    if not inspect.isclass(obj):
        return _accepted_by_function(obj)
    names, others = set(), False
    for cls in obj.__mro__:
        if cls is object or cls.__module__ == 'torch.nn.modules.module':
            break
        if (init := cls.__dict__.get('__init__')) is None:
            continue
        if not inspect.isfunction(init) or hasattr(init, '__wrapped__'):
            others = True
            break
        own, goes_on, others = _own_keys(init, cls.__name__)
        names |= own
        if others or not goes_on:
            break
    return frozenset(names - {'self'}), others


def _accepted_by_function(obj: Callable) -> tuple[frozenset[str], bool]:
    try:
        parameters = inspect.signature(obj).parameters.values()
    except (TypeError, ValueError):
        return frozenset(), True
    others = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return frozenset(p.name for p in parameters if p.kind is not p.VAR_KEYWORD), others


def setting(node: dict, key: str, scope: str | None):
    """What a dict with a `type` sets, or its class has as default; None if neither."""
    if key in node or not isinstance(node.get('type'), str):
        return node.get(key)
    for _, cls in resolve(node['type'], node.get('_scope_') or scope or 'mmengine'):
        for base in getattr(cls, '__mro__', ()):
            init = vars(base).get('__init__')
            parameter = inspect.signature(init).parameters.get(key) if inspect.isfunction(init) else None
            if parameter is not None and parameter.default is not parameter.empty:
                return parameter.default
    return None


def several(value) -> list:
    """Return a setting that may be one value, several, or None, as a list."""
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


@cache
def required(cls: Callable) -> frozenset[str]:
    """The keyword arguments that a class's own `__init__` has no default for; none where that is not certain."""
    init = getattr(cls, '__init__', None)
    if not inspect.isclass(cls) or not inspect.isfunction(init):
        return frozenset()
    parameters = list(inspect.signature(init).parameters.values())[1:]
    kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    return frozenset(p.name for p in parameters if p.kind in kinds and p.default is p.empty)


@cache
def numeric(obj: Callable) -> frozenset[str]:
    """The keyword arguments that are numbers by their annotation, or without one by their default."""
    return _parameters_like(obj, _is_number)


@cache
def boolean(obj: Callable) -> frozenset[str]:
    """The keyword arguments whose default is True or False and that are annotated as nothing else."""
    return _parameters_like(obj, lambda p: type(p.default) is bool and p.annotation in (bool, 'bool', p.empty))


def _parameters_like(obj: Callable, test: Callable[[inspect.Parameter], bool]) -> frozenset[str]:
    found: dict[str, bool] = {}  # a class's own parameter hides that of a base
    for init in [vars(cls).get('__init__') for cls in obj.__mro__] if inspect.isclass(obj) else [obj]:
        try:
            parameters = inspect.signature(init).parameters.values()
        except (TypeError, ValueError):
            continue
        for p in parameters:
            found.setdefault(p.name, test(p))
    return frozenset(name for name, passed in found.items() if passed)


def _is_number(parameter: inspect.Parameter) -> bool:
    if parameter.annotation is parameter.empty:
        return type(parameter.default) in (int, float)
    given = parameter.annotation
    words = set(re.findall(r'\w+', given.__name__ if isinstance(given, type) else str(given)))
    return bool(words & {'int', 'float'}) and words <= NUMBERS


@cache
def _sources(cls: Callable) -> str:
    """Source of a class and its bases, without those of torch and Python."""
    foreign = ('torch', 'builtins')
    classes = [c for c in getattr(cls, '__mro__', (cls, )) if c.__module__.partition('.')[0] not in foreign]
    return '\n'.join(filter(None, map(_source, classes)))


def _source(obj: Callable) -> str:
    try:
        return inspect.getsource(obj)
    except (OSError, TypeError):
        return ''


def mentions(cls: Callable, word: str) -> bool:
    """Whether a class (or a base) has the word as a string or an attribute.

    Owners that read a key out of a nested config themselves, before it is built, do.
    """
    return re.search(rf'''(['"]){re.escape(word)}\1|\.{re.escape(word)}\b''', _sources(cls)) is not None
