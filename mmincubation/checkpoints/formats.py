"""Recognise from its keys which program wrote a file, and read the ViT in it under timm's names."""
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from mmincubation.errors import CheckpointError

from .files import read_tensors, require_finite
from .keymaps import FORMATS, entries_below, global_names, named_tensors, stage_depth
from .networks import name_network, way_in
from .shapes import fit_class_row
from .stated import Stated, of_program, read_stated
from .wrappings import Found, find_vit, largest_dict

# Of pre-training, or not used by a classifier.
LEFT_OUT = re.compile(r'(.*\.)?(mask_token|masked_embed|decoder[_.].+|pooler\..+)')
OWN = ('mmincubation', 'mmengine', 'official')  # programs whose ViTs compute what ours do
HEADS = tuple(sorted({head for known in FORMATS for head in known.heads}))  # those of other shape keep their names
TAPS = 'tap_norms.'  # of our detectors and segmentors, beside the ViT
SHOWN = 8


@dataclass
class Weights:
    """A ViT's tensors under timm's names, with what its file says.

    `format` is the program that wrote the file. `division` lists the numbers of blocks of the modules, if the file
    shows them. `notes` say in words what was chosen or left out. `trained` are the fields of `Arch` in a checkpoint of
    our own runs. `stated` is what `config.json` beside the file says, or the code of the program.
    `taps` are the norms of a ViTBackbone's maps.
    """
    format: str
    tensors: dict[str, Tensor]
    header: dict = field(default_factory=dict)
    division: list[int] | None = None
    notes: list[str] = field(default_factory=list)
    trained: dict = field(default_factory=dict)
    stated: Stated | None = None
    taps: dict[str, Tensor] = field(default_factory=dict)

    @property
    def known(self) -> bool:
        """Whether our header or our own program says all of the function."""
        return bool(self.header.get('arch')) or self.format in OWN


def read_vit(path: str | Path, prefix: str | None = None) -> tuple[dict[str, Tensor], dict]:
    """Return a whole ViT's tensors under timm's names, and the file's header; see `open_vit`."""
    weights = open_vit(path, prefix)
    return weights.tensors, weights.header


def open_vit(path: str | Path, prefix: str | None = None) -> Weights:
    """Read a ViT's file in any format of docs/guides/weights.md; `path` may be an hf:// name.

    `prefix` chooses among several ViTs in the file, see `find_vit`.

    Raises:
        CheckpointError: the file cannot be read, is in no known format, contains a single module, or has another
            function than this ViT's; or holds several ViTs, or none below `prefix`; or values that are not finite.
    """
    content, header = read_tensors(path)
    _require_header_types(path, header)
    refuse_unfinished(path, content, header)
    try:
        weights = _from_stages(content.get('model_stages')) or _searched(content, prefix)
        _refuse_other(weights.tensors)
    except CheckpointError as error:
        raise CheckpointError(f'{path}: {error}') from error
    if header and weights.format == 'timm':  # our files have timm's names, and only ours have a header
        weights.format = 'mmincubation'
    weights.trained = arch_in(content.get('meta'))
    weights.header, weights.division = header, header.get('division') or weights.division
    _leave_out(weights)
    require_finite(weights.tensors, str(path))
    require_floating(weights.tensors, str(path))
    weights.tensors, notes = fit_class_row(weights.tensors)
    weights.notes += notes
    _add_biases(weights)
    if not weights.known:
        weights.stated = read_stated(path, content, weights.tensors) or of_program(weights.format, weights.tensors)
        weights.notes += weights.stated.notes if weights.stated else []
    return weights


def require_floating(tensors: dict[str, Tensor], source: str) -> None:
    """Refuse quantised weights.

    Raises:
        CheckpointError: a tensor holds no floating point numbers; the message names the first.
    """
    if whole := next((name for name, value in tensors.items() if not value.is_floating_point()), None):
        raise CheckpointError(f'{source}: {whole} holds {tensors[whole].dtype}, quantised weights; give those in '
                              'floating point')


def _refuse_other(tensors: dict) -> None:
    """Refuse a network that is no plain ViT, by its name."""
    if other := name_network(tensors):
        raise CheckpointError(f'this is {other}; only plain ViTs can be loaded, give the weights of one{way_in(other)}')


def _require_header_types(path: str | Path, header: dict) -> None:
    arch, division, assumed = header.get('arch', {}), header.get('division') or [], header.get('assumed', [])
    numbers = isinstance(division, list) and all(isinstance(depth, int) for depth in division)
    if not (isinstance(arch, dict) and numbers and isinstance(assumed, list)):
        raise CheckpointError(f'{path}: damaged header {str(header)[:120]}; convert the file again from its source')


def arch_in(meta) -> dict:
    """Return the `Arch` fields in the `meta` of a run's checkpoint; none in files of others and of earlier versions."""
    found = meta.get('arch') if isinstance(meta, dict) else None
    return found if isinstance(found, dict) else {}


def refuse_unfinished(path: str | Path, content: dict, header: dict) -> None:
    """Refuse a file whose target, or whole ViT, is not there yet.

    Raises:
        CheckpointError: it is a module alone, or a checkpoint of an incubation before its fine-tuning.
    """
    if header.get('kind') == 'part':
        raise CheckpointError(f'{path}: holds module {header.get("module")} alone; join the parts by tools/assemble.py')
    phase = (content.get('position') or {}).get('phase')
    if phase not in (None, 'finetune'):
        raise CheckpointError(f'{path}: an incubation in its phase {phase}, the target is not assembled yet; give '
                              'weights/assembled.safetensors or weights/finetune_last.safetensors of its run')


def _add_biases(weights: Weights) -> None:
    """Give a head, and the patches of mmseg's own ViT, that have no bias one of zeros: it computes the same."""
    for layer in ('head', *(('patch_embed.proj', ) if weights.format == 'mmpretrain' else ())):
        kernel, bias = weights.tensors.get(f'{layer}.weight'), f'{layer}.bias'
        if kernel is not None and bias not in weights.tensors:
            weights.tensors = weights.tensors | {bias: kernel.new_zeros(len(kernel))}
            weights.notes.append(f'{bias}: zeros added, the file has none')


def _leave_out(weights: Weights) -> None:
    """Leave out what no ViT has: norms of taps, parts of pre-training, and a head that is no linear classifier."""
    weights.taps = {name: value for name, value in weights.tensors.items() if name.startswith(TAPS)}
    _drop(weights, weights.taps)
    _drop(weights, filter(LEFT_OUT.fullmatch, weights.tensors), 'left out by name: {}')
    head = {name: value for name, value in weights.tensors.items() if name.startswith(HEADS)}
    linear = 'head.weight' in head and head['head.weight'].ndim == 2 and head.keys() <= {'head.weight', 'head.bias'}
    _drop(weights, () if linear else head, 'left out: {} (no linear classifier)')


def _drop(weights: Weights, names: Iterable[str], said: str = '') -> None:
    names = [*names]
    weights.tensors = {name: value for name, value in weights.tensors.items() if name not in names}
    if said and names:
        more = f' and {len(names) - SHOWN} more' * (len(names) > SHOWN)
        weights.notes.append(said.format(', '.join(names[:SHOWN]) + more))


def _searched(content: dict, prefix: str | None) -> Weights:
    """Find the one ViT in `content`."""
    found, notes = find_vit(content, prefix)
    keys = found.body if found else largest_dict(content)
    _refuse_other(keys)  # before a translation, which would miss what the plain ViT has
    if found is None:
        raise CheckpointError(f'no ViT in a known format; its first keys are {", ".join(map(str, list(keys)[:SHOWN]))}')
    tensors = found.vit()
    if modules := sorted({int(key.split('.')[1]) for key in tensors if re.match(r'stages\.\d+\.', key)}):
        return _from_doubled(tensors, modules)
    return Weights(_program(found, content, tensors), tensors, notes=notes)


def _program(found: Found, content: dict, tensors: dict[str, Tensor]) -> str:
    """Return the program that wrote a file; several have timm's names, which containers and tensors tell apart."""
    if found.format.name != 'timm':
        return found.format.name
    if found.words in (('state_dict', 'vit'), ('state_dict', 'target')):
        return 'mmengine'
    if found.words == ('state_dict', 'backbone') and 'meta' in content:  # a detector's or a segmentor's
        return 'mmengine'
    if found.words[-1:] in (('base_encoder', ), ('momentum_encoder', )):
        return 'mocov3'
    if 'mask_token' in tensors and 'blocks.0.ls1.gamma' in tensors:
        return 'dinov2'
    if found.words == ('model', ):  # DeiT and MAE; MAE's pre-training has no classifier
        return 'deit' if 'head.weight' in tensors else 'mae'
    return 'timm'


def _from_stages(stages) -> Weights | None:
    """Read the public code's `model_stages`: one dict per module, with local block numbers."""
    stages = [named_tensors(stage) for stage in stages] if isinstance(stages, list) else []
    division = [stage_depth(stage) for stage in stages]
    tensors = {}
    for module, stage in enumerate(stages):
        tensors.update(global_names(stage, sum(division[:module])))
    return Weights('official', tensors, division=division) if 'patch_embed.proj.weight' in tensors else None


def _from_doubled(model: dict, modules: list[int]) -> Weights:
    """Read the public code's `model`, which repeats every tensor as `stages.k.*`."""
    division = [stage_depth(entries_below(model, f'stages.{module}.')) for module in modules]
    tensors = {key: value for key, value in model.items() if not key.startswith('stages.')}
    return Weights('official', tensors, division=division)
