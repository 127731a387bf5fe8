"""A target module as a network of its own, for what needs one: DistributedDataParallel."""
from timm.layers import DropPath
from torch import Tensor, nn

from mmincubation.resumable.draws import seed_torch
from mmincubation.vit.spec import Division
from mmincubation.vit.transformer import VisionTransformer, run_block

META, TARGET = 0, 1  # whose block it is, in the key of its draws


def run_drawn(block: nn.Module, tokens: Tensor, seed: int | None, *place: int, with_cp: bool = False) -> Tensor:
    """A block whose stochastic depth is drawn from (seed, *place), whatever was drawn before it.

    So a hybrid draws the same, whether it trains alone or is one of several. Without a seed it draws as usual.
    `with_cp`: see `run_block`.
    """
    if seed is not None and isinstance(block.drop_path1, DropPath):
        seed_torch(seed, *place)
    return run_block(block, tokens, with_cp=with_cp and block.training)


class Part(nn.Module):
    """Target module `module`: tokens (B, N, C) to tokens; the first takes images, the last gives logits.

    Its parameters are the target's own, and no others are registered here.
    """

    def __init__(self, target: VisionTransformer, division: Division, module: int):
        super().__init__()
        self.whole = [target]  # in a list, lest the other modules be registered
        self.span = division.span(module)
        self.first, self.last = module == 0, module == len(division) - 1
        self.trained = nn.ParameterList(division.part(dict(target.named_parameters()), module).values())

    def forward(self, inputs: Tensor, seed: int | None = None) -> Tensor:
        """`seed` is described in `run_drawn`."""
        target, = self.whole
        tokens = target.stem(inputs) if self.first else inputs
        for i in self.span:
            tokens = run_drawn(target.blocks[i], tokens, seed, TARGET, i, with_cp=target.with_cp)
        return target.classify(tokens) if self.last else tokens
