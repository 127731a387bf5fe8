"""Key names of the files that hold a ViT, mapped to timm's names."""
from pathlib import Path

from torch import Tensor

from .files import CheckpointError, read_tensors


def read_vit(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """A whole ViT's tensors under timm's names, and the file's header (empty for files of other programs).

    Reads our files, mmengine checkpoints of our classifiers, DeiT, MAE, timm, and the public Deep Incubation code's.

    Raises:
        CheckpointError: the file cannot be read, holds a single module, or is in no known format.
    """
    content, header = read_tensors(path)
    if header.get('kind') == 'part':
        raise CheckpointError(f'{path}: holds module {header.get("module")} alone; join the parts by tools/assemble.py')
    phase = (content.get('incubation') or {}).get('phase', 'finetune')
    if phase != 'finetune':
        raise CheckpointError(f'{path}: an incubation in its phase {phase}, the target is not assembled yet; give '
                              'weights/assembled.safetensors or weights/finetune_last.safetensors of its run')
    tensors = to_timm(content)
    if tensors is None:
        raise CheckpointError(f'{path}: no ViT in a known format; its first keys are {_first_keys(content)}')
    return tensors, header


def to_timm(content: dict) -> dict[str, Tensor] | None:
    """The ViT in a checkpoint's content under timm's names; None if the format is unknown."""
    for convert in (from_mmengine, from_stages, from_model, from_bare):
        tensors = convert(content)
        if tensors and 'patch_embed.proj.weight' in tensors and any(key.startswith('blocks.0.') for key in tensors):
            return tensors
    return None


def from_mmengine(content: dict) -> dict[str, Tensor]:
    """A Runner's checkpoint of our classifier (`vit.`) or of our incubation model (`target.`)."""
    state = strip_prefix(named_tensors(content.get('state_dict')), 'module.')
    return _below(state, 'vit.') or _below(state, 'target.')


def from_stages(content: dict) -> dict[str, Tensor]:
    """The public code's `model_stages`: one dict per module, with local block numbers."""
    stages = content.get('model_stages')
    tensors, start = {}, 0
    for stage in map(named_tensors, stages if isinstance(stages, list) else []):
        tensors.update(global_names(stage, start))
        start += stage_depth(stage)
    return tensors


def from_model(content: dict) -> dict[str, Tensor]:
    """`model` of DeiT, MAE and the public code, which repeats every tensor as `stages.k.*`."""
    return from_bare(content.get('model'))


def from_bare(content: dict | None) -> dict[str, Tensor]:
    """A bare state dict."""
    tensors = strip_prefix(named_tensors(content), 'module.')
    return {key: value for key, value in tensors.items() if not key.startswith('stages.')}


def global_names(stage: dict, start: int) -> dict:
    """A stage with local block numbers, renamed so that its first block is block `start` of the model."""
    return {_shift(key, start): value for key, value in stage.items()}


def stage_depth(stage: dict) -> int:
    """Number of blocks in a stage with local block numbers."""
    return 1 + max((_block(key) for key in stage), default=-1)


def strip_prefix(tensors: dict, prefix: str) -> dict:
    """Without `prefix` where a key has it (`module.`: DistributedDataParallel's)."""
    return {key.removeprefix(prefix): value for key, value in tensors.items()}


def named_tensors(value) -> dict[str, Tensor]:
    """`value` if it is a dict of named tensors, else nothing."""
    if not isinstance(value, dict):
        return {}
    named = all(isinstance(key, str) and isinstance(item, Tensor) for key, item in value.items())
    return value if named else {}


def _below(tensors: dict, prefix: str) -> dict:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _block(key: str) -> int:
    number = key.split('.')[1] if key.startswith('blocks.') else ''
    return int(number) if number.isdigit() else -1


def _shift(key: str, start: int) -> str:
    block = _block(key)
    return key if block < 0 else key.replace(f'blocks.{block}.', f'blocks.{start + block}.', 1)


def _first_keys(content: dict, count: int = 8) -> str:
    nested = next((v for k in ('state_dict', 'model') if isinstance(v := content.get(k), dict)), content)
    return ', '.join(str(key) for key in list(nested)[:count])
