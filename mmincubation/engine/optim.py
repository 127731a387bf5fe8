"""Optimiser construction and mixed precision."""
from contextlib import contextmanager

import torch
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS as ROOT_WRAPPERS
from mmengine.registry import OPTIMIZERS
from torch import nn

from mmincubation.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS

from .config_check import ConfigError

NO_DECAY = ('pos_embed', 'cls_token')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MergedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Two parameter groups over what trains: with weight decay, and without.

    Not decayed are 1-D parameters (biases, norms, LayerScale) and those whose names contain an entry of
    `paramwise_cfg['no_decay']` (default: position embedding and class token). Frozen parameters get no state.
    """

    def _validate_cfg(self) -> None:
        """Refuse options of other constructors, which would be ignored."""
        super()._validate_cfg()
        if unknown := sorted(set(self.paramwise_cfg) - {'no_decay'}):
            raise ConfigError(f'optim_wrapper.paramwise_cfg: {unknown} unknown; {type(self).__name__} takes no_decay')

    def __call__(self, model: nn.Module) -> OptimWrapper:
        names = tuple(self.paramwise_cfg.get('no_decay', NO_DECAY))
        decayed, plain = [], []
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                no_decay = parameter.ndim <= 1 or any(n in name for n in names)
                (plain if no_decay else decayed).append(parameter)
        groups = [dict(params=decayed), dict(params=plain, weight_decay=0.)]
        optimizer = OPTIMIZERS.build(dict(self.optimizer_cfg, params=[g for g in groups if g['params']]))
        return ROOT_WRAPPERS.build(self.optim_wrapper_cfg, default_args=dict(optimizer=optimizer))


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """bfloat16 autocast on CPU and GPU; bfloat16 has float32's range, so there is no loss scaling."""

    @contextmanager
    def optim_context(self, model: nn.Module):
        """Autocast inside the stock context (gradient accumulation)."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield
