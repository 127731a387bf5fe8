"""Begin a run from the weights of another: what is loaded, what begins anew, and why a file does not fit."""
from difflib import get_close_matches

from torch import Size, Tensor, nn

from mmincubation.checkpoints import CheckpointError, open_vit, require_fit
from mmincubation.checkpoints.formats import arch_in, refuse_unfinished
from mmincubation.checkpoints.load import is_named, require_header
from mmincubation.checkpoints.shards import weights_sha256
from mmincubation.datasets.classes import names_in
from mmincubation.models.on_meta import class_shapes, classes_in_model
from mmincubation.registry import dicts_in, kind_of
from mmincubation.vit import arch_of

WRAPPERS = ('module.', '_orig_mod.')  # of DistributedDataParallel and torch.compile
OF_A_VIT = ('ViTBackbone', 'TimmViT', 'ViTClassifier')  # models whose `init_cfg` takes a ViT's file


def state_of(content: dict) -> dict[str, Tensor]:
    """Return the tensors of a whole model in a file's content, bare or below `state_dict`, without wrappers' names."""
    state = content.get('state_dict', content)
    state = {key: value for key, value in state.items() if isinstance(value, Tensor)} if isinstance(state, dict) else {}
    while state and (prefix := next((p for p in WRAPPERS if all(key.startswith(p) for key in state)), None)):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def are_of_one_kind(own: dict, state: dict) -> bool:
    """Return whether a file's tensors have at least half of their names in common with the model's."""
    return 2 * len(own.keys() & state.keys()) >= max(1, min(len(own), len(state)))


def select_weights(model: nn.Module, content: dict, cfg, classes=None) -> dict:
    """Leave in a file's content, below `state_dict`, what `load_from` gives the model; return the report.

    All must match but what the config's `load_from_fresh` names: that keeps the model's first values. `classes` are
    the names of the training data's classes; without `load_from_fresh` the file must have been trained on the same.

    Returns:
        `path`, `sha256` and the one-line `coverage`, as in `load_strict`.

    Raises:
        CheckpointError: the file does not fit; the message says what to set.
    """
    source, fresh = str(cfg['load_from']), tuple(cfg.get('load_from_fresh') or ())
    state, own = state_of(content), model.state_dict()
    refuse_unfinished(source, content, {})
    if (arch := arch_of(model)) is not None:
        require_header(dict(arch=arch_in(content.get('meta'))), arch, source, ('num_heads', 'norm_eps'))
    if not are_of_one_kind(own, state):
        raise CheckpointError(_foreign(model, content, cfg, source))
    for name in fresh:
        if not any(is_named(key, (name, )) for key in (*own, *state)):
            raise CheckpointError(
                f'load_from_fresh: {name!r} is no layer of the model or of {source}{_near(name, own)}')
    try:
        coverage = require_fit(model, state, source, fresh)
    except CheckpointError as error:
        raise CheckpointError(_only_classes(own, state, cfg, source, fresh) or f'{error}. Give a checkpoint of this '
                              f'model, or name in load_from_fresh the layers that shall begin anew{_vit(cfg, source)}'
                              ) from error
    if cfg.get('load_from_fresh') is None:
        _require_same_classes(content, cfg, source, classes)
    content['state_dict'] = {name: value for name, value in state.items() if not is_named(name, fresh)}
    return dict(path=source, sha256=weights_sha256(source), coverage=coverage)


def other_classes(own: dict, state: dict, cfg, fresh=()) -> tuple[int, int, list[str]] | None:
    """Return the classes of a file, those of the model, and the layers that differ, if nothing but these differs.

    None if anything else is different, or if that cannot be known.
    """
    own, state = ({k: v.shape for k, v in tensors.items() if not is_named(k, fresh)} for tensors in (own, state))
    wrong = [name for name in own if own[name] != state.get(name)]
    if own.keys() != state.keys() or not wrong:
        return None
    shapes, count = class_shapes(cfg), classes_in_model(cfg)
    more = {_classes_more(*shapes.get(name, (own[name], own[name])), state[name]) for name in wrong}
    return None if len(more) != 1 or None in more else (count + more.pop(), count, _layers(wrong, own))


def _classes_more(own: Size, larger: Size, file: Size) -> int | None:
    """Return how many classes more a file has, from a weight's shape here, with one class more, and in the file."""
    if len(file) != len(own):
        return None
    steps = {divmod(f - o, m - o) if m != o else (f - o and None, 0) for o, m, f in zip(own, larger, file, strict=True)}
    steps.discard((0, 0))  # sides that do not depend on classes, and are equal
    [(more, rest)] = steps if len(steps) == 1 else [(None, 0)]
    return None if rest else more


def _layers(names: list[str], own: dict) -> list[str]:
    """Return the layers that hold nothing but these weights, and by their own names those of other layers."""
    found = {}
    for name in names:
        layer = name.rpartition('.')[0]
        whole = layer and all(other in names for other in own if is_named(other, (layer, )))
        found[layer if whole else name] = None
    return list(found)


def _only_classes(own: dict, state: dict, cfg, source: str, fresh: tuple[str, ...]) -> str | None:
    if (found := other_classes(own, state, cfg, fresh)) is None:
        return None
    theirs, ours, layers = found
    return (f'{source} has {theirs} classes and the model {ours}; all else fits. To begin the layers that '
            f'depend on classes anew and load the rest, set load_from_fresh = {[*fresh, *layers]}')


def _require_same_classes(content: dict, cfg, source: str, classes) -> None:
    pairs = list(zip(names_in(content) or (), classes or (), strict=False))
    differ = next((f'class {i} is {a!r} there, {b!r} here' for i, (a, b) in enumerate(pairs) if a != b), None)
    if differ and (layers := _layers(list(shapes := class_shapes(cfg)), shapes)):
        raise CheckpointError(f'{source} was trained on other classes: {differ}. Set load_from_fresh = {layers} to '
                              'begin what tells classes apart anew, or load_from_fresh = [] to load it as it is')


def _place(cfg) -> str | None:
    """Return the place of the model, or of the part of it, that begins from a ViT's file."""
    return next((place for place, node in dicts_in(cfg['model'], 'model')
                 if kind_of(node) in OF_A_VIT), None)


def _vit(cfg, source: str) -> str:
    """Return the end of a hint: the ViT in a file, if one is known there, can be had alone."""
    try:
        weights = open_vit(source)
    except CheckpointError:
        return ''
    place = _place(cfg)
    return f', or take its ViT alone (format {weights.format}) by {place}.init_cfg' if place else ''


def _foreign(model: nn.Module, content: dict, cfg, source: str) -> str:
    """Say what a file is of whose names the model has few."""
    kind, place = type(model).__name__, _place(cfg)
    try:
        weights = open_vit(source)
    except CheckpointError:
        first = ', '.join(str(key) for key in list(content)[:8])
        alone = f'; weights of its ViT alone go to {place}.init_cfg' if place else ''
        return f'{source} is no checkpoint of the {kind}, its first keys are {first}; load_from takes one{alone}'
    where = f"give it as {place}.init_cfg = dict(type='Pretrained', checkpoint={source!r})" if place else \
        f'no part of the {kind} begins from such a file'
    return (f'{source} holds a ViT alone (format {weights.format}), load_from takes a whole {kind}: '
            f'{where}{_new_head(weights.tensors, cfg, place)}')


def _new_head(tensors: dict, cfg, place: str | None) -> str:
    """Return the end of a hint for classifiers: a head for another number of classes begins anew."""
    if place != 'model':
        return ''
    same = 'head.weight' in tensors and len(tensors['head.weight']) == classes_in_model(cfg)
    return '' if same else " with fresh=('head', ) in it, for the classes differ"


def _near(name: str, own: dict) -> str:
    layers = {prefix for key in own for prefix in _prefixes(key)}
    match = get_close_matches(name, sorted(layers), 1)
    return f' (nearest: {match[0]!r})' if match else ''


def _prefixes(key: str) -> list[str]:
    parts = key.split('.')
    return ['.'.join(parts[:i]) for i in range(1, len(parts) + 1)]
