"""Make of a run's checkpoint what others need: weights without the state of the training, config and model card."""
import ast
from pathlib import Path

from mmincubation.checkpoints import CheckpointError, open_vit, read_tensors, sha256_of, write_tensors
from mmincubation.checkpoints.files import MODEL, require_finite
from mmincubation.checkpoints.formats import arch_in, refuse_unfinished
from mmincubation.checkpoints.pixels import stated_pixels
from mmincubation.datasets.classes import names_in
from mmincubation.errors import ConfigError
from mmincubation.leaderboard.card import make_files, write_files
from mmincubation.recovery.load_from import state_of

from .results import colours

CONFIG, WEIGHTS = 'config.py', 'model.safetensors'
CLASSIFIERS = ('vit.', 'target.', 'meta.')  # what the keys of our classifiers begin with


def publish(checkpoint: Path, out: Path) -> list[Path]:
    """Write the weights, the config and, if result.json lies beside the checkpoint, the card into a new folder.

    A classifier's weights are its ViT under timm's names; a detector's or segmentor's are those of the whole model.
    Both hold the names of the classes. With EMA they are the averaged ones. The config is the one that the checkpoint
    has as text; it is not executed.

    Returns:
        The files.

    Raises:
        CheckpointError: the checkpoint is none of a run, unfinished, damaged or not finite, or the disk is full.
        ConfigError: the folder is not empty.
        ValueError: result.json cannot be read.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f'{out} is there already; give a new folder')
    content, _ = read_tensors(checkpoint)
    refuse_unfinished(checkpoint, content, {})
    text, (tensors, header) = _config_text(checkpoint, content), _weights(checkpoint, content)
    require_finite(tensors, str(checkpoint))
    write_tensors(out / WEIGHTS, tensors, header)
    (out / CONFIG).write_text(text, 'utf-8')
    result = checkpoint.parent / 'result.json'
    if not result.is_file():
        return [out / WEIGHTS, out / CONFIG]
    outputs = [dict(path=WEIGHTS, sha256=sha256_of(out / WEIGHTS))]
    return [out / WEIGHTS, out / CONFIG,
            *write_files(make_files(result, published=dict(config=CONFIG, outputs=outputs)), out)]


def _config_text(checkpoint: Path, content: dict) -> str:
    meta = content.get('meta')
    text = meta.get('cfg') if isinstance(meta, dict) else None
    if not isinstance(text, str) or not isinstance(content.get('state_dict'), dict):
        raise CheckpointError(f'{checkpoint}: no checkpoint of a run, it has no state_dict or config; weights alone '
                              'are rewritten by tools/convert.py')
    try:
        ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise CheckpointError(f'{checkpoint}: the config in it is no Python; give a checkpoint of a run') from error
    return text if text.endswith('\n') else f'{text}\n'


def _weights(checkpoint: Path, content: dict) -> tuple[dict, dict]:
    """Return the tensors and the header of the published file."""
    meta, names, tensors = content['meta'], names_in(content), state_of(content)
    classes = dict(classes=list(names)) if names else {}
    if tensors and all(key.startswith(CLASSIFIERS) for key in tensors):
        vit = open_vit(checkpoint)
        more = dict(division=vit.division) if vit.division else {}
        if pixels := stated_pixels(checkpoint):
            more |= dict(mean=pixels.mean, std=pixels.std)
        return vit.tensors, dict(kind='vit', arch=vit.trained, **classes, **more)
    found = meta.get('dataset_meta')
    if names and isinstance(found, dict) and found.get('palette'):
        classes['palette'] = colours(found['palette'], len(names)).tolist()
    return tensors, dict(kind=MODEL, meta=dict(dataset_meta=classes, arch=arch_in(meta)))
