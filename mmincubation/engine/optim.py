"""Build optimisers with parameter groups, and train in mixed precision."""
from contextlib import contextmanager

import torch
from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS as ROOT_WRAPPERS
from mmengine.registry import OPTIMIZERS
from torch import nn
from torch.optim import Optimizer

from mmincubation.config.paramwise import NO_DECAY, paramwise_problems
from mmincubation.errors import ConfigError
from mmincubation.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class ViTOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Build parameter groups with layer-wise learning rates and without decay where it does not help.

    A parameter that trains has the rate `lr * lr_scale` and the decay `weight_decay * decay_scale`; frozen parameters
    get no state. Parameters with the same two scales share a group, and the table of groups is logged. Each scale is
    the product of these rules in `paramwise_cfg`:

    - `layer_decay` (default 1.0): `layer_decay ** (num_layers + 1 - layer)`. The ViT in the model gives the layer: any
      submodule with `layer_of(name)` and `num_layers`. It is 0 for the stem, i + 1 for block i, and `num_layers + 1`
      for the rest and for everything outside of a ViT (necks, heads). As in BEiT (arXiv:2106.08254) and ViTDet.
    - `no_decay`: substrings of names without decay. Parameters of at most one dimension (biases, norms, LayerScale)
      never have decay. Default: position embedding, class token, registers.
    - `custom_keys={substring of a name: dict(lr_mult=1.0, decay_mult=1.0)}`: more factors. The longest substring that
      matches counts, of several the alphabetically first, as in mmengine.

    Schedulers multiply the rate of each group and so keep the ratios, except those that end at an absolute `eta_min`.
    `optimizer=dict(fused=True)` is left to the config: AdamW has it on CPU and GPU.

    Raises:
        ConfigError: unknown keys or wrong values; when called, a custom key that matches no parameter, or a
            `layer_decay` for a model without layers.
    """
    paramwise_problems = staticmethod(paramwise_problems)  # asked by type_problems

    def _validate_cfg(self) -> None:
        if problems := list(paramwise_problems(self.paramwise_cfg, 'optim_wrapper.paramwise_cfg')):
            raise ConfigError('\n'.join(problems))

    def __call__(self, model: nn.Module) -> OptimWrapper:
        optimizer = OPTIMIZERS.build(dict(self.optimizer_cfg, params=self._groups(model)))
        for group in optimizer.param_groups:  # by now they have the optimiser's own lr and weight decay
            group['lr'] = group['lr'] * group['lr_scale']
            group['weight_decay'] = group.get('weight_decay', 0.) * group['decay_scale']
        print_log(group_table(optimizer), logger='current')
        wrapper = dict(type='OptimWrapper') | self.optim_wrapper_cfg
        return ROOT_WRAPPERS.build(wrapper, default_args=dict(optimizer=optimizer))

    def _groups(self, model: nn.Module) -> list[dict]:
        """Return the groups of the parameters that train, from the stem to the rest, those with decay first."""
        vits = vits_in(model)
        self._require_matching_model(model, vits)
        groups = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                after, layer = position(name, vits)
                lr_mult, decay_scale = self._factors(name, parameter)
                lr_scale = self.paramwise_cfg.get('layer_decay', 1.)**after * lr_mult
                groups.setdefault((lr_scale, decay_scale), []).append((after, layer, parameter))
        # Groups are listed by their earliest layer, so that the table follows the network.
        first = {scales: max(after for after, *_ in members) for scales, members in groups.items()}
        return [_group(*scales, groups[scales]) for scales in sorted(groups, key=lambda s: (-first[s], -s[1], s[0]))]

    def _require_matching_model(self, model: nn.Module, vits: dict[str, nn.Module]) -> None:
        decay, keys = self.paramwise_cfg.get('layer_decay', 1.), self.paramwise_cfg.get('custom_keys', {})
        if decay != 1 and not vits:
            raise ConfigError(f'optim_wrapper.paramwise_cfg.layer_decay={decay}: leave it out, no part of this '
                              f'{type(model).__name__} numbers its layers as mmincubation.ViTBackbone does')
        if unused := unused_keys(model, keys):
            raise ConfigError(unused)

    def _factors(self, name: str, parameter: nn.Parameter) -> tuple[float, float]:
        """Return the factors of the rate and of the decay that a parameter's name and shape give."""
        keys = self.paramwise_cfg.get('custom_keys', {})
        custom = keys.get(min((key for key in keys if key in name), key=lambda key: (-len(key), key), default=None), {})
        plain = parameter.ndim <= 1 or any(part in name for part in self.paramwise_cfg.get('no_decay', NO_DECAY))
        return custom.get('lr_mult', 1.), 0. if plain else custom.get('decay_mult', 1.)


def unused_keys(model: nn.Module, keys: dict) -> str:
    """Name the custom keys that are part of no parameter's name, in a sentence; nothing if there is none."""
    names = [name for name, _ in model.named_parameters()]  # frozen ones too: a phase may train only some
    unused = [key for key in keys if not any(key in name for name in names)]
    return f'optim_wrapper.paramwise_cfg.custom_keys: {unused} match no parameter of this {type(model).__name__}; ' \
           f'names are like {names[0]!r}' if unused else ''


def vits_in(model: nn.Module) -> dict[str, nn.Module]:
    """Return the submodules that number their layers, by the prefix of the names of their parameters."""
    return {f'{name}.' if name else '': module for name, module in model.named_modules() if hasattr(module, 'layer_of')}


def position(name: str, vits: dict[str, nn.Module]) -> tuple[int, str]:
    """Return how many layers of its ViT come after a parameter's layer, and the name of that layer.

    A parameter outside of any ViT gives 0 and `rest`.
    """
    prefix = max((prefix for prefix in vits if name.startswith(prefix)), key=len, default=None)
    if prefix is None:
        return 0, 'rest'
    layer = vits[prefix].layer_of(name.removeprefix(prefix))
    after = vits[prefix].num_layers + 1 - layer
    return after, 'rest' if not after else 'stem' if not layer else f'block {layer - 1}'


def _group(lr_scale: float, decay_scale: float, members: list[tuple[int, str, nn.Parameter]]) -> dict:
    layers = {after: layer for after, layer, _ in members}
    first, last = layers[max(layers)], layers[min(layers)]
    return dict(params=[parameter for *_, parameter in members], lr_scale=lr_scale, decay_scale=decay_scale,
                layer=first if first == last else f'{first} .. {last}')


def group_table(optimizer: Optimizer) -> str:
    """Return the groups of a `ViTOptimWrapperConstructor` as aligned text: the totals, then a line for each group."""
    rows = [('layer', 'lr scale', 'lr', 'weight decay', 'tensors', 'parameters')]
    for group in optimizer.param_groups:
        size = sum(parameter.numel() for parameter in group['params'])
        rows.append((group['layer'], *(f'{group[key]:.4g}' for key in ('lr_scale', 'lr', 'weight_decay')),
                     f'{len(group["params"]):,}', f'{size:,}'))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ['  '.join(cell.rjust(width) if i else cell.ljust(width)
                       for i, (cell, width) in enumerate(zip(row, widths, strict=True))) for row in rows]
    parameters = [parameter for group in optimizer.param_groups for parameter in group['params']]
    return '\n'.join([f'{type(optimizer).__name__}: {len(rows) - 1} groups, {len(parameters):,} tensors, '
                      f'{sum(p.numel() for p in parameters):,} parameters', *lines])


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Run forward passes in bfloat16 autocast, on CPU and GPU; bfloat16 has float32's range, so no loss scaling."""

    @contextmanager
    def optim_context(self, model: nn.Module):
        """Open autocast inside mmengine's context, which accumulates gradients."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield
