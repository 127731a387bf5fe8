"""Parameters, gradients and optimiser state spread over the ranks (torch's FSDP2, ZeRO): each rank holds a part."""
from collections.abc import Iterator

import torch
from mmengine.device import get_device
from mmengine.dist import broadcast
from mmengine.model import is_model_wrapper
from mmengine.model.utils import convert_sync_batchnorm
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.distributed import get_rank, get_world_size
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from mmincubation.errors import ConfigError
from mmincubation.registry import MODEL_WRAPPERS

TYPES = ('FullyShard', 'mmincubation.FullyShard')  # in `model_wrapper_cfg`


def shard_options(wrapper_cfg: dict | None) -> dict | None:
    """The arguments for `shard` in a run's `model_wrapper_cfg`; None if that asks for something else."""
    options = dict(wrapper_cfg or {})
    return options if options.pop('type', None) in TYPES else None


def shard(module: nn.Module, reshard_after_forward: bool = True) -> nn.Module:
    """Spread the parameters of `module` over all ranks, in place; returns it. All ranks must hold equal ones.

    Each transformer block is one group, all else another. A group is whole on every rank while it computes, and its
    gradients are averaged over the ranks as DistributedDataParallel does. The state dict keeps its names; its tensors
    are DTensors of full shape, and `load_state_dict` takes full tensors. Build the optimiser afterwards. A module that
    is spread already is returned as it is; there is no way back, and no `deepcopy`.

    Args:
        reshard_after_forward: between a block's forward and backward pass each rank keeps its part alone; else the
            whole block, which saves a third of the traffic.

    Raises:
        ValueError: the module has no transformer block.
    """
    if isinstance(module, FSDPModule):
        return module
    blocks = blocks_of(module)
    if not blocks:
        raise ValueError(f'a {type(module).__name__} has no transformer block to share among the ranks')
    mesh = init_device_mesh(get_device(), (get_world_size(), ))
    for part in [*blocks, module]:
        part.reshards = reshard_after_forward and part is not module  # the rest is needed again at once
        fully_shard(part, mesh=mesh, reshard_after_forward=part.reshards)
    for part in module.modules():
        if part._parameters:
            part.register_load_state_dict_pre_hook(_take_parts)
    return module


def blocks_of(module: nn.Module) -> list[Block]:
    """The transformer blocks in a module."""
    return [part for part in module.modules() if isinstance(part, Block)]


def sharded_parts(module: nn.Module) -> Iterator[FSDPModule]:
    """The groups that `shard` has made in a module or in parts of it."""
    return (part for part in module.modules() if isinstance(part, FSDPModule))


def make_whole(module: nn.Module) -> None:
    """Let every rank hold all parameters, so that it can run the module without the others, until `make_parts`."""
    for part in sharded_parts(module):
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()


def make_parts(module: nn.Module) -> None:
    """Inverse of `make_whole`."""
    for part in sharded_parts(module):
        part.set_reshard_after_forward(part.reshards, recurse=False)
        part.reshard()


def own(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor; of one that is not spread, all."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which each rank may hold a part, on every rank; all must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_like(full: Tensor, other: Tensor) -> Tensor:
    """The part of a full tensor that this rank holds of `other`, as a DTensor; nothing is sent."""
    if not isinstance(other, DTensor) or isinstance(full, DTensor) or full.shape != other.shape:
        return full
    full = full.detach().to(other.device)
    return distribute_tensor(full, other.device_mesh, other.placements, src_data_rank=None)


def gathered(node):
    """Nested containers with every spread tensor whole and on the CPU on rank 0, and None elsewhere.

    All ranks must call it; one tensor at a time is whole on a device.
    """
    if isinstance(node, dict):
        return {key: gathered(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(map(gathered, node))
    if not isinstance(node, DTensor):
        return node
    whole = node.detach().full_tensor()
    return whole.cpu() if get_rank() == 0 else None


def take_optimizer_parts(state: dict, optimizer: Optimizer) -> dict:
    """An optimiser's state dict, whole, with this rank's parts in place of what belongs to spread parameters."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group['params']]
    parts = {index: {key: part_like(value, parameters[index]) if isinstance(value, Tensor) else value
                     for key, value in entries.items()} for index, entries in state['state'].items()}
    return {**state, 'state': parts}


@torch.no_grad()
def _take_parts(module: nn.Module, state: dict, prefix: str, *_) -> None:
    """Before a module's `load_state_dict`."""
    for name, parameter in module._parameters.items():
        if parameter is not None and prefix + name in state:
            state[prefix + name] = part_like(state[prefix + name], parameter)


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside any number of data-parallel wrappers."""
    while is_model_wrapper(model):
        model = model.module
    return model


@MODEL_WRAPPERS.register_module()
class FullyShard:
    """Spreads parameters, gradients and optimiser state over the ranks, in place of DistributedDataParallel's copies.

    For its argument see `models.sharding.shard`. Of an incubation only fine-tuning is spread; alone, and in
    tools/test.py, nothing is.
    """

    def __init__(self, reshard_after_forward: bool = True):
        self.reshard_after_forward = reshard_after_forward

    def __call__(self, model: nn.Module, sync_bn: str | None = None) -> nn.Module:
        """The model, on this rank's device, with its first weights, and spread."""
        model = model.to(get_device())
        if sync_bn:
            model = convert_sync_batchnorm(model, sync_bn)
        if getattr(model, 'trains_in_phases', False):  # its loop shards what a phase trains
            return model
        if hasattr(model, 'init_weights'):
            model.init_weights()
        for tensor in model.state_dict().values():
            broadcast(tensor)
        try:
            return shard(model, self.reshard_after_forward)
        except ValueError as error:
            raise ConfigError(f'model_wrapper_cfg: {error}; leave FullyShard out') from error
