"""Compile each transformer block of a model, not the step around them (`compile` in a config)."""
import os
import shutil

import torch
from mmengine.hooks import Hook
from torch import nn

from mmincubation.errors import ConfigError
from mmincubation.vit.sharding import blocks_of, unwrap


def compile_blocks(model: nn.Module, given: dict | bool | None) -> bool:
    """Compile the blocks of all ViTs in a model, in place; return whether `given`, the config's `compile`, asks for
    it.

    torch compiles each kind of block (trained or frozen, with gradients or without) at its first step. The state dict,
    the phases and the random numbers do not change.

    Raises:
        ConfigError: torch refuses the options, there is no block, or the CPU backend finds no C++ compiler.
    """
    if given is None or given is False:
        return False
    blocks = blocks_of(model)
    if not blocks:
        raise ConfigError(f'compile: no part of this {type(model).__name__} is a ViT of mmincubation')
    backend = 'inductor' if given is True else given.get('backend', 'inductor')
    if backend == 'inductor' and not torch.cuda.is_available() and not shutil.which(os.environ.get('CXX', 'g++')):
        raise ConfigError('compile: on a CPU torch.compile needs a C++ compiler: install g++, or give '
                          'compile.backend=aot_eager')
    try:
        for block in blocks:
            block.compile(**({} if given is True else given))
    except Exception as error:  # each backend has its own
        raise ConfigError(f'compile: {str(error).strip().splitlines()[0]}') from error
    return True


def compile_model(runner) -> None:
    """Compile the blocks of a runner's model; its validations run uncompiled, as their last batch is smaller."""
    if compile_blocks(unwrap(runner.model), runner.cfg.get('compile')):
        runner.register_hook(UncompiledValidationHook())
        runner.logger.info('The blocks are compiled at their first steps, which takes minutes')


class UncompiledValidationHook(Hook):
    """Run validations without compiled code."""

    def before_val(self, runner) -> None:
        """Turn compiled code off."""
        torch.compiler.set_stance('force_eager')

    def after_val(self, runner) -> None:
        """Turn compiled code on again."""
        torch.compiler.set_stance('default')
