"""Window attention of ViTDet, as functions over a plain timm block."""
import torch.nn.functional as F
from timm.layers import Attention
from timm.models.vision_transformer import Block
from torch import Tensor


def attend_in_windows(attention: Attention, tokens: Tensor, grid: tuple[int, int], size: int) -> Tensor:
    """Attention among the tokens (B, rows * columns, C) of each `size` x `size` window of the grid.

    Windows start top left; the grid is padded with zero tokens at the right and the bottom to whole windows. The
    padding takes part in the attention and is cut off afterwards, as in ViTDet. `attention` is one of `build_block`:
    without norms, gate or dropout.
    """
    padded = tuple(side + -side % size for side in grid)
    if padded == grid:
        return _join(attention(_split(tokens, grid, size)), grid, size)
    # The two linear layers see real tokens alone: those of zeros are their bias, and what is cut off needs none.
    qkv = _pad(attention.qkv(tokens), attention.qkv.bias, grid, padded)
    windows = _attend(_split(qkv, padded, size), attention.num_heads)
    rows, columns = grid
    inside = _join(windows, padded, size).unflatten(1, padded)[:, :rows, :columns]
    return attention.proj(inside.flatten(1, 2))


def _split(tokens: Tensor, grid: tuple[int, int], size: int) -> Tensor:
    """(B, rows * columns, C) to windows (B * windows, size * size, C), row by row."""
    rows, columns = (side // size for side in grid)
    return tokens.unflatten(1, (rows, size, columns, size)).transpose(2, 3).flatten(3, 4).flatten(0, 2)


def _join(windows: Tensor, grid: tuple[int, int], size: int) -> Tensor:
    """The inverse of `_split`."""
    rows, columns = (side // size for side in grid)
    return windows.unflatten(0, (-1, rows, columns)).unflatten(3, (size, size)).transpose(2, 3).flatten(1, 4)


def _pad(qkv: Tensor, bias: Tensor | None, grid: tuple[int, int], padded: tuple[int, int]) -> Tensor:
    """(B, rows * columns, 3C) on the larger grid: what the linear layer makes of zeros is its bias."""
    empty = qkv.new_zeros(1) if bias is None else bias.to(qkv.dtype)
    whole = empty.expand(len(qkv), *padded, qkv.shape[-1]).clone()
    whole[:, :grid[0], :grid[1]] = qkv.unflatten(1, grid)
    return whole.flatten(1, 2)


def _attend(qkv: Tensor, heads: int) -> Tensor:
    """(windows, tokens, 3C) to (windows, tokens, C)."""
    q, k, v = qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def forward_block(block: Block, tokens: Tensor, grid: tuple[int, int], window: int) -> Tensor:
    """A block over tokens (B, rows * columns, C), its attention within windows (`window=0`: global).

    Stochastic depth drops the residual branch of a whole image, never of single windows; so it comes after the windows
    are joined. Global attention also takes prefix tokens.
    """
    if not window:
        return block(tokens)
    attended = attend_in_windows(block.attn, block.norm1(tokens), grid, window)
    tokens = tokens + block.drop_path1(block.ls1(attended))
    return tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))
