"""Recognise from its keys which program wrote a file, and read the ViT in it under timm's names."""
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from mmincubation.errors import CheckpointError

from .files import read_tensors
from .keymaps import FORMATS, entries_below, global_names, named_tensors, stage_depth, strip_prefix

LEFT_OUT = re.compile(r'(.*\.)?(mask_token|decoder[_.].+|pooler\..+)')  # of pre-training, or not used by a classifier
EXTRA_TOKENS = ('dist_token', 'reg_token', 'register_tokens')
SHOWN = 8


@dataclass
class Weights:
    """A ViT's tensors under timm's names, with what its file says.

    `format` is the program that wrote the file. `division` lists the numbers of blocks of the modules, if the file
    shows them. `notes` say in words what was chosen or left out.
    """
    format: str
    tensors: dict[str, Tensor]
    header: dict = field(default_factory=dict)
    division: list[int] | None = None
    notes: list[str] = field(default_factory=list)


def read_vit(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """Return a whole ViT's tensors under timm's names, and the file's header; see `open_vit`."""
    weights = open_vit(path)
    return weights.tensors, weights.header


def open_vit(path: str | Path) -> Weights:
    """Read a ViT's file in any format of docs/guides/weights.md; `path` may be an hf:// name.

    Raises:
        CheckpointError: the file cannot be read, is in no known format, contains a single module, or has tokens that
            this ViT does not have.
    """
    content, header = read_tensors(path)
    _require_header_types(path, header)
    _refuse_unfinished(path, content, header)
    try:
        weights = next((found for found in _candidates(content) if _is_vit(found.tensors)), None)
    except CheckpointError as error:
        raise CheckpointError(f'{path}: {error}') from error
    if weights is None:
        raise CheckpointError(f'{path}: no ViT in a known format; its first keys are {_first_keys(content)}')
    if extra := [name for name in EXTRA_TOKENS if name in weights.tensors]:
        raise CheckpointError(f'{path}: has {extra[0]} of shape {tuple(weights.tensors[extra[0]].shape)}, a token that '
                              'this ViT has no place for; take the version of this model without it')
    if header and weights.format == 'timm':  # our files have timm's names, and only ours have a header
        weights.format = 'mmincubation'
    weights.header, weights.division = header, header.get('division') or weights.division
    return _without_left_out(weights)


def _require_header_types(path: str | Path, header: dict) -> None:
    arch, division, assumed = header.get('arch', {}), header.get('division') or [], header.get('assumed', [])
    numbers = isinstance(division, list) and all(isinstance(depth, int) for depth in division)
    if not (isinstance(arch, dict) and numbers and isinstance(assumed, list)):
        raise CheckpointError(f'{path}: damaged header {str(header)[:120]}; convert the file again from its source')


def _refuse_unfinished(path: str | Path, content: dict, header: dict) -> None:
    if header.get('kind') == 'part':
        raise CheckpointError(f'{path}: holds module {header.get("module")} alone; join the parts by tools/assemble.py')
    phase = (content.get('incubation') or {}).get('phase', 'finetune')
    if phase != 'finetune':
        raise CheckpointError(f'{path}: an incubation in its phase {phase}, the target is not assembled yet; give '
                              'weights/assembled.safetensors or weights/finetune_last.safetensors of its run')


def _without_left_out(weights: Weights) -> Weights:
    names = [name for name in weights.tensors if LEFT_OUT.fullmatch(name)]
    if names:
        weights.tensors = {name: value for name, value in weights.tensors.items() if name not in names}
        more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
        weights.notes.append(f'left out by name: {", ".join(names[:SHOWN])}{more}')
    return weights


def _is_vit(tensors: dict) -> bool:
    return 'patch_embed.proj.weight' in tensors and any(key.startswith('blocks.0.') for key in tensors)


def _candidates(content: dict) -> Iterator[Weights]:
    """Yield what the content may be, the most specific format first."""
    yield _from_stages(content.get('model_stages'))
    yield _from_doubled(_tensors_in(content.get('model')))
    state, notes = _state_dict(content)
    yield Weights('mmengine', entries_below(state, 'vit.') or entries_below(state, 'target.'), notes=notes)
    for tensors in (state, _tensors_in(content.get('model')), _tensors_in(content)):
        for known in FORMATS[1:]:
            alone = {known.root + key: value for key, value in tensors.items()}
            whole = next((state for state in (tensors, alone) if known.root + known.patch in state), {})
            if any(key.startswith(known.root + known.block) for key in whole):
                yield Weights(known.name, known.to_timm(whole), notes=notes)
    # DeiT and MAE both save timm's names under `model`; MAE's pre-training has no classifier.
    model = _tensors_in(content.get('model'))
    left = ['model_ema is left out'] if 'model_ema' in content else []
    yield Weights('deit' if 'head.weight' in model else 'mae', model, notes=left)
    bare = _tensors_in(content) or state
    # DINOv2 has timm's names too; only its mask token and LayerScale tell it apart.
    dino = 'mask_token' in bare and 'blocks.0.ls1.gamma' in bare
    yield Weights('dinov2' if dino else 'timm', bare, notes=notes)


def _from_stages(stages) -> Weights:
    """Read the public code's `model_stages`: one dict per module, with local block numbers."""
    stages = [named_tensors(stage) for stage in stages] if isinstance(stages, list) else []
    division = [stage_depth(stage) for stage in stages]
    tensors = {}
    for module, stage in enumerate(stages):
        tensors.update(global_names(stage, sum(division[:module])))
    return Weights('official', tensors, division=division)


def _from_doubled(model: dict) -> Weights:
    """Read the public code's `model`, which repeats every tensor as `stages.k.*`; without those return no tensors."""
    modules = {int(key.split('.')[1]) for key in model if re.match(r'stages\.\d+\.', key)}
    division = [stage_depth(entries_below(model, f'stages.{module}.')) for module in sorted(modules)]
    tensors = {key: value for key, value in model.items() if not key.startswith('stages.')} if modules else {}
    return Weights('official', tensors, division=division)


def _state_dict(content: dict) -> tuple[dict, list[str]]:
    """Return the `state_dict` of a training checkpoint, or its averaged weights (EMA), and notes on the choice."""
    if averaged := _tensors_in(content.get('state_dict_ema')):  # timm's train.py
        return averaged, ['EMA weights (state_dict_ema); those of the last step are left out']
    notes = ['EMA weights: mmengine puts them into state_dict when it saves; the plain ones, then in ema_state_dict, '
             'are left out'] if 'ema_state_dict' in content else []
    return _tensors_in(content.get('state_dict')), notes


def _tensors_in(value) -> dict[str, Tensor]:
    return strip_prefix(named_tensors(value), 'module.')


def _first_keys(content: dict) -> str:
    nested = next((v for k in ('state_dict', 'model') if isinstance(v := content.get(k), dict)), content)
    return ', '.join(str(key) for key in list(nested)[:SHOWN])
