"""Mend a built model, load the checkpoint that a test is given, refuse one that no training can go on from."""
from pathlib import Path

from mmengine.config import Config
from mmengine.model import BaseTTAModel
from torch import nn

from mmincubation.checkpoints import CheckpointError, load_strict, load_vit, read_tensors, require_fit
from mmincubation.checkpoints.formats import arch_in, refuse_unfinished
from mmincubation.checkpoints.load import require_header
from mmincubation.compat.coco_api import mend_coco
from mmincubation.downstream.losses import correct_losses
from mmincubation.downstream.sliding import pad_small_images
from mmincubation.recovery.checkpoint_files import damage
from mmincubation.recovery.load_from import are_of_one_kind, other_classes, state_of
from mmincubation.vit import arch_of
from mmincubation.vit.sharding import unwrap


def mended(model: nn.Module) -> nn.Module:
    """Correct in place what the MM packages compute wrongly in a model that was just built, and return it."""
    mend_coco()  # by now mmdet is imported, if the model needs it
    correct_losses(model)
    pad_small_images(model)
    return model


def load_for_test(model: nn.Module, path: str, content: dict, cfg: Config) -> str:
    """Load a file's content strictly into the built model of a config; return the coverage line.

    It holds the tensors of the whole model, as a run's own .pth or bare, or a ViT for a classifier.

    Raises:
        CheckpointError: the file does not fit; the message says why.
    """
    model = unwrap(model)
    model = model.module if isinstance(model, BaseTTAModel) else model
    own, state = model.state_dict(), state_of(content)
    refuse_unfinished(path, content, {})
    if (arch := arch_of(model)) is not None:
        require_header(dict(arch=arch_in(content.get('meta'))), arch, path)
    vit = getattr(model, 'target', None) or getattr(model, 'vit', None)
    if not are_of_one_kind(own, state):  # others' ViTs also come in a state_dict
        if vit is None:
            raise CheckpointError(f'{path} is no checkpoint of the {type(model).__name__}, its first keys are '
                                  f'{", ".join(map(str, list(state or content)[:8]))}; give one of its training')
        return load_vit(vit, path)['coverage']
    try:
        require_fit(model, state, path)
    except CheckpointError as error:
        if (found := other_classes(own, state, cfg)) is None:
            raise
        raise CheckpointError(f'{path} has {found[0]} classes and the model {found[1]}; all else fits. Test it with '
                              'the config that it was trained by, on data of its classes') from error
    return load_strict(model, state, source=path)['coverage']


def require_training(given: str, path: str) -> None:
    """Raise CheckpointError unless a training can go on from the file."""
    if Path(path).is_dir():
        raise CheckpointError(f'--resume {given}: a folder; give a file, or --resume alone for the newest checkpoint '
                              'of the work dir')
    weights = path.endswith('.safetensors')
    if not weights and (problem := damage(path)):
        raise CheckpointError(f'checkpoint {given} {problem}; give an earlier one')
    content = {} if weights else read_tensors(path)[0]
    if missing := [key for key in ('state_dict', 'optimizer', 'meta') if not isinstance(content.get(key), dict)]:
        raise CheckpointError(f'--resume {given}: no checkpoint that a training can go on from, it has no '
                              f'{", ".join(missing)}; to begin a new run from its weights, set load_from instead')
