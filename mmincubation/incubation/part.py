"""A target module as a network of its own, for what needs one: DistributedDataParallel."""
import torch
from timm.layers import DropPath
from torch import Tensor, nn

from mmincubation.exact.draws import seed_torch
from mmincubation.models.spec import Division
from mmincubation.models.vit import VisionTransformer

META, TARGET = 0, 1  # whose block it is, in the key of its draws


def run_block(block: nn.Module, tokens: Tensor, seed: int | None, *place: int) -> Tensor:
    """A block whose stochastic depth is drawn from (seed, *place), whatever was drawn before it.

    So a hybrid draws the same, whether it trains alone or is one of several. Without a seed it draws as usual.
    """
    if seed is not None and isinstance(block.drop_path1, DropPath):
        seed_torch(seed, *place)
    return block(tokens)


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
        """`seed` is described in `run_block`."""
        target, = self.whole
        tokens = target.stem(inputs) if self.first else inputs
        for i in self.span:
            tokens = run_block(target.blocks[i], tokens, seed, TARGET, i)
        return target.classify(tokens) if self.last else tokens


def place_parameters(model: nn.Module, device: torch.device, needed) -> None:
    """Move the parameters whose names are `needed` (a function) to a device, and the others to the CPU."""
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(device if needed(name) else 'cpu')
