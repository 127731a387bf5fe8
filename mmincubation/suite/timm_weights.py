"""Pretrained weights of timm, by name."""
import logging
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from mmincubation.checkpoints import CheckpointError, infer_arch, write_tensors
from mmincubation.checkpoints.networks import name_network
from mmincubation.checkpoints.pixels import Pixels, of_timm
from mmincubation.checkpoints.shapes import fit_class_row
from mmincubation.checkpoints.stated import other_function
from mmincubation.errors import ConfigError, one_line
from mmincubation.vit import Arch

TIMM = 'timm:'


def timm_arch(word: str) -> Arch:
    """Return the shape of `timm:NAME`, without its weights.

    Raises:
        ConfigError: timm has no such model, or none with weights.
        CheckpointError: it is no plain ViT.
    """
    name = word.removeprefix(TIMM)
    if not timm.is_model(name) or not timm.models.is_model_pretrained(name):
        near = timm.list_pretrained(f'{name.split(".")[0]}*')[:3]
        raise ConfigError(f'{word}: timm {timm.__version__} has no pretrained model of this name'
                          + f'; nearest: {", ".join(near)}' * bool(near))
    with torch.device('meta'):
        model = timm.create_model(name)
    return _plain_vit(model, word)[1]


def _plain_vit(model: nn.Module, word: str) -> tuple[dict[str, Tensor], Arch]:
    """Return tensors and shape of timm's `model`; what tensors do not show is read from its layers."""
    other = name_network(model.state_dict())
    if other or (function := other_function(model)):
        raise CheckpointError(f'{word}: this is {other or f"no plain ViT, it has {function}"}; a suite takes plain '
                              'ViTs, for others write a config with mmincubation.TimmViT and a suite file')
    tensors, _ = fit_class_row(model.state_dict())
    try:
        block, pool = model.blocks[0], model.global_pool
        own = dict(num_heads=block.attn.num_heads, norm_eps=block.norm1.eps, img_size=model.patch_embed.img_size[0])
        own |= dict(global_pool=pool) if pool in ('token', 'avg') else {}
        return tensors, Arch(**infer_arch(tensors)[0] | own)
    except (KeyError, IndexError, AttributeError) as error:
        raise CheckpointError(f'{word}: no plain ViT, {error} is missing') from error


def timm_pixels(word: str) -> Pixels | None:
    """Return the mean and the std of the images that the model `timm:NAME` was trained on."""
    config = timm.get_pretrained_cfg(word.removeprefix(TIMM))
    return of_timm(word, config and config.to_dict())


def fetch_timm(word: str, folder: Path, fetch: bool) -> str:
    """Return the file of the weights of `timm:NAME` in a folder; timm downloads it first if `fetch`.

    Raises:
        CheckpointError: timm cannot download it.
    """
    path = folder / f'{word.removeprefix(TIMM)}.safetensors'
    if path.exists():
        return str(path)
    print(f'{word}: timm {"downloads" if fetch else "will download"} it to {path}', flush=True)
    if not fetch:
        return str(path)
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # a line for each of many tries
    try:
        model = timm.create_model(word.removeprefix(TIMM), pretrained=True)
    except Exception as error:  # of the network, of many kinds
        raise CheckpointError(f'{word}: timm cannot download its weights ({one_line(error)}); save them as a file '
                              'where there is a network, and give NAME=FILE here') from error
    finally:
        logging.disable(before)
    tensors, arch = _plain_vit(model, word)
    pixels = timm_pixels(word)
    stated = dict(mean=pixels.mean, std=pixels.std) if pixels else {}
    write_tensors(path, tensors, dict(kind='vit', arch=arch.to_dict(), **stated))
    return str(path)
