"""Load weights into a ViT with another image size, patch size or number of classes."""
import math

from mmengine.logging import print_log
from timm.layers.patch_embed import resample_patch_embed
from torch import Tensor, nn

from mmincubation.errors import CheckpointError
from mmincubation.vit import Arch, VisionTransformer
from mmincubation.vit.transformer import resize_pos_embed

from .formats import TAPS, Weights, open_vit
from .load import assumed, is_named, load_strict, require_known_fields

PATCH = 'patch_embed.proj.weight'


def fit_patch(tensors: dict[str, Tensor], size: int) -> tuple[dict[str, Tensor], list[str]]:
    """Resize the file's patch kernel to patches of `size` x `size` pixels; return the tensors and notes on it.

    The method is PI-resize (FlexiViT, arXiv:2212.08013): the new kernel gives on resized patches what the old one gives
    on the patches. Interpolating the kernel gives other values; docs/guides/weights.md has the errors of both.
    """
    old = tuple(tensors[PATCH].shape[2:]) if PATCH in tensors else (size, size)
    if old == (size, size):
        return tensors, []
    return (tensors | {PATCH: resample_patch_embed(tensors[PATCH], [size, size])},
            [f'{PATCH}: PI-resized from {old[0]}x{old[1]} to {size}x{size}'])


def fit_pos_embed(tensors: dict[str, Tensor], side: int, cls_token: bool, source: str
                  ) -> tuple[dict[str, Tensor], list[str]]:
    """Resize the file's position embedding to `side` x `side` patches; return the tensors and notes on it.

    Without `cls_token` the class token's row is dropped.

    Raises:
        CheckpointError: the embedding's grid is not square.
    """
    if 'pos_embed' not in tensors:
        return tensors, []
    # A class token has a row before those of the patches, which must form a square grid.
    pos_embed, prefix, done = tensors['pos_embed'], int('cls_token' in tensors), []
    old = math.isqrt(max(pos_embed.shape[1] - prefix, 0))
    if old**2 + prefix != pos_embed.shape[1] or not old:
        raise CheckpointError(f'{source}: pos_embed has {pos_embed.shape[1]} rows, not a square grid and {prefix} '
                              'class token; give a checkpoint trained on square images')
    if prefix and not cls_token:
        pos_embed, prefix = pos_embed[:, 1:], 0
        done.append('its class token row dropped')
    if old != side:
        pos_embed = resize_pos_embed(pos_embed, (side, side), prefix)
        done.append(f'resized from {old}x{old} to {side}x{side}')
    return tensors | {'pos_embed': pos_embed}, [f'pos_embed: {", ".join(done)}'] if done else []


def load_fitted(module: nn.Module, source: str, arch: Arch, *, cls_token: bool = True, drop=(), fresh=(),
                fields=('num_heads', 'norm_eps', 'global_pool'), prefix: str | None = None, setting: str = '') -> dict:
    """Load a ViT's file strictly into `module`, a ViT of `arch` or some of its layers; return the report.

    Patch kernel and position embedding are resized first. `drop`, `fresh`, `setting` and the report are those of
    `load_strict`; `coverage` also says what was resized. The `fields` of `arch` must agree with the file, see
    `require_known_fields`.
    `prefix` chooses among several ViTs in the file, see `open_vit`.

    Raises:
        CheckpointError: the file cannot be read or does not match.
    """
    weights = open_vit(source, prefix)
    require_known_fields(weights, arch, source, fields)
    tensors, patch = fit_patch(weights.tensors, arch.patch_size)
    tensors, grid = fit_pos_embed(tensors, arch.grid, cls_token, source)
    taps, left = _fitting_taps(module, weights)
    fresh = tuple(name for name in fresh if not (taps and TAPS.startswith(name)))
    report = load_strict(module, tensors | taps, source=source, drop=drop, fresh=fresh, setting=setting)
    return report | {'coverage': '; '.join([report['coverage'], *patch, *grid, *left, *weights.notes,
                                            *assumed(weights, arch, fields)])}


def _fitting_taps(module: nn.Module, weights: Weights) -> tuple[dict[str, Tensor], list[str]]:
    """Return the file's norms of a backbone's maps if the module has the same ones; else a note that they are left."""
    own = {name: value.shape for name, value in module.state_dict().items() if name.startswith(TAPS)}
    if {name: value.shape for name, value in weights.taps.items()} == own:
        return weights.taps, []
    return {}, [f"left out: {len(weights.taps)} tensors tap_norms, not those of the model's taps"] * bool(weights.taps)


def load_pretrained(vit: VisionTransformer, checkpoint: str, fresh: tuple[str, ...] = (),
                    prefix: str | None = None) -> dict:
    """Load `checkpoint` into a classifier's ViT, log what was loaded, and return the report of `load_fitted`.

    `prefix` chooses among several ViTs in the file, see `open_vit`. `fresh` names what keeps its random weights, though
    the file may have others: `('head', )` for other classes.

    Raises:
        CheckpointError: the file cannot be read or does not match.
    """
    _require_layers(fresh, vit, checkpoint, prefix)
    # timm's names of the norm after average pooling, and of a layer before the head in early files.
    drop = (*fresh, *(('fc_norm', ) if 'norm' in fresh else ()), *(('pre_logits', ) if 'head' in fresh else ()))
    # Pooling belongs to the head: a new head may read another one than the file's.
    fields = ('num_heads', 'norm_eps') if 'head' in fresh else ('num_heads', 'norm_eps', 'global_pool')
    report = load_fitted(vit, str(checkpoint), vit.arch, drop=drop, fresh=tuple(fresh), fields=fields,
                         prefix=prefix, setting='init_cfg')
    print_log(f'{checkpoint}: {report["coverage"]}', logger='current')
    return report


def _require_layers(fresh: tuple[str, ...], vit: VisionTransformer, checkpoint: str, prefix: str | None) -> None:
    """Refuse a name that is neither a layer of the ViT nor of the file: it would change nothing."""
    own = vit.state_dict()
    strange = [name for name in fresh if not any(is_named(key, (name, )) for key in own)]
    known = open_vit(checkpoint, prefix).tensors if strange else {}
    for name in strange:
        if not any(is_named(key, (name, )) for key in known):
            layers = ', '.join(dict.fromkeys(key.split('.')[0] for key in own))
            raise CheckpointError(f'init_cfg.fresh: {name!r} is no layer of the model or of {checkpoint}; it has '
                                  f'{layers}')
