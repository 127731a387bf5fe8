"""Shard parameters, gradients and optimiser state over the ranks, by torch's FSDP2 (ZeRO, arXiv:1910.02054)."""
from collections.abc import Iterator

import torch
from mmengine.device import get_device
from mmengine.dist import broadcast
from mmengine.model import is_model_wrapper
from mmengine.model.utils import convert_sync_batchnorm
from timm.models.eva import EvaBlock, EvaBlockPostNorm
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
    """Return the arguments of `shard` in a run's `model_wrapper_cfg`, None if it names another wrapper."""
    options = dict(wrapper_cfg or {})
    return options if options.pop('type', None) in TYPES else None


def shard(module: nn.Module, reshard_after_forward: bool = True) -> nn.Module:
    """Shard the parameters of `module` over all ranks, in place, and return it. All ranks must start with equal ones.

    Each transformer block is one group; all other parameters are another. A group is gathered on every rank while it
    computes. Its gradients are averaged over the ranks, as in DistributedDataParallel. The state dict keeps its names;
    its tensors are DTensors of full shape, and `load_state_dict` takes full tensors. Build the optimiser afterwards.
    A module that is sharded already is returned unchanged. Sharding cannot be undone, and `deepcopy` does not work.

    Args:
        reshard_after_forward: free a block's gathered parameters between its forward and its backward pass. False
            keeps them, which saves a third of the traffic.

    Raises:
        ValueError: the module has no transformer block.
    """
    if isinstance(module, FSDPModule):
        return module
    blocks = blocks_of(module)
    if not blocks:
        raise ValueError(f'a {type(module).__name__} has no transformer block to share among the ranks')
    mesh = init_device_mesh(get_device(), (get_world_size(), ))
    for group in [*blocks, module]:
        # What is in no block is needed again at once: the backward pass begins with the head.
        group.reshards_after_forward = reshard_after_forward and group is not module
        fully_shard(group, mesh=mesh, reshard_after_forward=group.reshards_after_forward)
    for owner in module.modules():
        if owner._parameters:
            owner.register_load_state_dict_pre_hook(_shard_loaded_state)
    return module


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """Return the transformer blocks in a module, ours and timm's."""
    return [child for child in module.modules() if isinstance(child, Block | EvaBlock | EvaBlockPostNorm)]


def sharded_groups(module: nn.Module) -> Iterator[FSDPModule]:
    """Return the groups into which `shard` divided a module, or modules inside it."""
    return (child for child in module.modules() if isinstance(child, FSDPModule))


def unshard(module: nn.Module) -> None:
    """Gather all parameters on every rank, until `reshard`: each rank can then run the module without the others."""
    for group in sharded_groups(module):
        group.set_reshard_after_forward(False, recurse=False)
        group.unshard()


def reshard(module: nn.Module) -> None:
    """Keep only this rank's shard of each parameter again, after `unshard`."""
    for group in sharded_groups(module):
        group.set_reshard_after_forward(group.reshards_after_forward, recurse=False)
        group.reshard()


def local_shard(tensor: Tensor) -> Tensor:
    """Return this rank's shard of a tensor, or the tensor itself if it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """Return the full tensor on every rank. Every rank must call it if the tensor is sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(full: Tensor, other: Tensor) -> Tensor:
    """Return `full` sharded as `other` is, as a DTensor; nothing is sent.

    `full` is returned unchanged if `other` is not sharded, if `full` is sharded already, or if the shapes differ.
    """
    if not isinstance(other, DTensor) or isinstance(full, DTensor) or full.shape != other.shape:
        return full
    full = full.detach().to(other.device)
    # With `src_data_rank=None` each rank cuts its shard from its own copy, instead of receiving rank 0's.
    return distribute_tensor(full, other.device_mesh, other.placements, src_data_rank=None)


def gather_full(node):
    """Return nested containers with every sharded tensor in full: on the CPU of rank 0, and None on other ranks.

    Every rank must call it. Only one tensor at a time is in full on the device.
    """
    if isinstance(node, dict):
        return {key: gather_full(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(map(gather_full, node))
    if not isinstance(node, DTensor):
        return node
    full = node.detach().full_tensor()
    return full.cpu() if get_rank() == 0 else None


def shard_optimizer_state(state: dict, optimizer: Optimizer) -> dict:
    """Return a full state dict of an optimiser with the state of sharded parameters sharded as they are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group['params']]
    shards = {index: {key: shard_like(value, parameters[index]) if isinstance(value, Tensor) else value
                      for key, value in entries.items()} for index, entries in state['state'].items()}
    return {**state, 'state': shards}


@torch.no_grad()
def _shard_loaded_state(module: nn.Module, state: dict, prefix: str, *_) -> None:
    """Run before a module's `load_state_dict`, which takes full tensors."""
    for name, parameter in module._parameters.items():
        if parameter is not None and prefix + name in state:
            state[prefix + name] = shard_like(state[prefix + name], parameter)


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside any number of data-parallel wrappers."""
    while is_model_wrapper(model):  # mmengine's and torch's wrappers can be nested
        model = model.module
    return model


@MODEL_WRAPPERS.register_module()
class FullyShard:
    """Shard parameters, gradients and optimiser state over the ranks; DistributedDataParallel copies them.

    `shard` describes the argument. An incubation shards only fine-tuning. A run on one device and tools/test.py shard
    nothing.
    """

    def __init__(self, reshard_after_forward: bool = True):
        self.reshard_after_forward = reshard_after_forward

    def __call__(self, model: nn.Module, sync_bn: str | None = None) -> nn.Module:
        """Move the model to this rank's device, initialise it, and return it sharded.

        Raises:
            ConfigError: the model has no transformer block.
        """
        model = model.to(get_device())
        if sync_bn:
            model = convert_sync_batchnorm(model, sync_bn)
        if getattr(model, 'trains_in_phases', False):  # its loop shards what a phase trains
            return model
        if hasattr(model, 'init_weights'):
            model.init_weights()
        for tensor in model.state_dict().values():
            broadcast(tensor)  # ranks may have drawn different weights; `shard` takes each rank's own shard
        try:
            return shard(model, self.reshard_after_forward)
        except ValueError as error:
            raise ConfigError(f'model_wrapper_cfg: {error}; leave FullyShard out') from error
