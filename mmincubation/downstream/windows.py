"""Window attention of ViTDet, as functions over a plain timm block."""
from collections.abc import Callable

from timm.models.vision_transformer_sam import window_partition, window_unpartition
from torch import Tensor

from mmincubation.models.vit import Block


def attend_in_windows(attention: Callable[[Tensor], Tensor], tokens: Tensor, grid: tuple[int, int],
                      size: int) -> Tensor:
    """Attention among the tokens (B, rows * columns, C) of each `size` x `size` window of the grid.

    Windows start top left; the grid is padded with zero tokens at the right and the bottom to whole windows. The
    padding takes part in the attention and is cut off afterwards, as in ViTDet.
    """
    windows, padded = window_partition(tokens.unflatten(1, grid), size)
    windows = attention(windows.flatten(1, 2)).unflatten(1, (size, size))
    return window_unpartition(windows, size, grid, padded).flatten(1, 2)


def forward_block(block: Block, tokens: Tensor, grid: tuple[int, int], window: int) -> Tensor:
    """A block over tokens (B, rows * columns, C), its attention within windows (`window=0`: global).

    Stochastic depth drops the residual branch of a whole image, never of single windows; so it comes after the windows
    are joined. Global attention also takes prefix tokens.
    """
    if not window:
        return block(tokens)
    block.draw(tokens)
    return getattr(block, 'compiled_in_windows', in_windows)(block, tokens, grid, window)


def in_windows(block: Block, tokens: Tensor, grid: tuple[int, int], window: int) -> Tensor:
    """What `forward_block` does with windows, after the draws."""
    attended = attend_in_windows(block.attn, block.norm1(tokens), grid, window)
    tokens = tokens + block.drop_path1(block.ls1(attended))
    return tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))
