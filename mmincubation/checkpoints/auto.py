"""`arch='auto'`: the architecture of the file that a model begins from."""
from collections.abc import Mapping
from pathlib import Path

from mmincubation.errors import CheckpointError
from mmincubation.vit import ARCHS, Arch
from mmincubation.vit.spec import AUTO

from .files import read_tensors
from .formats import arch_in, open_vit
from .inspection import WITHOUT_TRACE, describe

OF_CLASSIFIERS = ('num_classes', 'global_pool')  # fields that a backbone does not use


def asks_file(arch) -> bool:
    """Return whether `arch` is `'auto'`, or a dict of this name with changes."""
    return arch == AUTO or isinstance(arch, Mapping) and arch.get('name') == AUTO


def settle_arch(settings: Mapping, path: str | Path | None, place: str, prefix: str | None = None,
                backbone: bool = False) -> dict:
    """Return the settings of a model whose `arch` is `'auto'`, with all fields of the file at `path` in its place.

    The fields beside `name='auto'` change those of the file, as `changed` does. What neither tensors nor names say
    (heads, epsilon) is that of the public ViT of this width, as in `describe`. `backbone` leaves out the fields of a
    classifier and settles `cls_token`, where the settings have none or None: whether the file has one, and no window
    excludes it. `place` is that of the model in the config, for messages.

    Raises:
        CheckpointError: there is no file, it cannot be read, or it does not say all; the message says what to write.
    """
    at = f'{place}.arch' if place else 'arch'
    if not path:
        raise CheckpointError(f"{at}='auto': there is no file to take it from; give init_cfg=dict(type='Pretrained', "
                              f'checkpoint=PATH), or write a name: {", ".join(ARCHS)}')
    try:
        shown, has_token = _shown(path, prefix)
    except CheckpointError as error:
        raise CheckpointError(f"{at}='auto' is that of a file: {error}") from error
    given = settings['arch'] if isinstance(settings['arch'], Mapping) else {}
    fields = changed(shown, {key: value for key, value in given.items() if key != 'name'})
    if backbone:
        fields = {key: value for key, value in fields.items() if key not in OF_CLASSIFIERS}
    _require_all(fields, given, at, path, backbone)
    try:
        arch = Arch.parse(fields).to_dict()
    except ValueError as error:
        raise CheckpointError(f"{at}='auto': {path}: {error}") from error
    if not backbone:
        return dict(settings, arch=arch)
    token = settings.get('cls_token')
    return dict(settings, arch={key: value for key, value in arch.items() if key not in OF_CLASSIFIERS},
                cls_token=has_token and not settings.get('window_size') if token is None else token)


def changed(fields: Mapping, changes: Mapping) -> dict:
    """Return fields of `Arch` with changes; another patch size alone keeps the grid of positions, not the image."""
    out = {**fields, **changes}
    if 'img_size' not in changes and isinstance(changes.get('patch_size'), int) and 'img_size' in fields:
        out['img_size'] = fields['img_size'] // fields['patch_size'] * changes['patch_size']
    return out


def _shown(path: str | Path, prefix: str | None) -> tuple[dict, bool]:
    """Return the fields of `Arch` that a file shows, and whether it has a class token."""
    content, _ = read_tensors(path)
    state = content.get('state_dict')
    if (arch := arch_in(content.get('meta'))) and isinstance(state, Mapping):  # a run's: it says all
        return dict(arch), any(str(key).endswith('cls_token') for key in state)
    weights = open_vit(path, prefix)
    fields, _ = describe(weights, path)
    if not fields.get('num_classes'):
        fields.pop('num_classes', None)
    return fields, 'cls_token' in weights.tensors


def _require_all(fields: dict, given: Mapping, at: str, path: str | Path, backbone: bool) -> None:
    """Refuse a file that does not say a field, with the words to write instead."""
    examples = dict(num_heads=max(fields.get('embed_dim', 768) // 64, 1), norm_eps=1e-6, num_classes=10)
    needed = [*WITHOUT_TRACE, *([] if backbone else ['num_classes'])]
    if missing := [key for key in needed if key not in fields]:
        why = 'has no head' if missing == ['num_classes'] else f'does not say {" and ".join(missing)}'
        words = dict(name=AUTO) | {key: value for key, value in given.items() if key != 'name'}
        words |= {key: examples[key] for key in missing}
        listed = ', '.join(f'{key}={value!r}' for key, value in words.items())
        own = 'that of your classes' if missing == ['num_classes'] else 'the values of its training'
        raise CheckpointError(f"{at}='auto': {path} {why}; write arch=dict({listed}), with {own}")
