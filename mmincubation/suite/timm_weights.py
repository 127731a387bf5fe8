"""Pretrained weights of timm, by name."""
import logging
from pathlib import Path

import timm
import torch
from torch import nn

from mmincubation.checkpoints import CheckpointError, infer_arch, write_tensors
from mmincubation.checkpoints.networks import name_network
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
        return _arch_of(timm.create_model(name), word)


def _arch_of(model: nn.Module, word: str) -> Arch:
    tensors = model.state_dict()
    if other := name_network(tensors):
        raise CheckpointError(f'{word}: this is {other}; a suite takes plain ViTs, for others write a config with '
                              'mmincubation.TimmViT and a suite file')
    try:
        shown = infer_arch(tensors)[0]
        block = model.blocks[0]
        return Arch(**shown | dict(num_heads=block.attn.num_heads, norm_eps=block.norm1.eps))
    except (KeyError, IndexError, AttributeError) as error:
        raise CheckpointError(f'{word}: no plain ViT, {error} is missing') from error


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
    write_tensors(path, model.state_dict(), dict(kind='vit', arch=_arch_of(model, word).to_dict()))
    return str(path)
