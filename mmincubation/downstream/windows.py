"""ViTDet's window attention in a plain block."""
from torch import Tensor
from torch.autograd import Function

from mmincubation.vit.attention import Attention
from mmincubation.vit.transformer import Block


def attend_in_windows(attention: Attention, tokens: Tensor, grid: tuple[int, int], size: int) -> Tensor:
    """Attend within each `size` x `size` window of a grid of tokens (B, rows * columns, C); return the same shape.

    Windows start at the top left. The grid is padded with zero tokens at the right and the bottom to full windows. The
    padding takes part in the attention and is cut off afterwards, as in ViTDet. `attention` must be one of
    `build_block`.
    """
    padded = tuple(side + -side % size for side in grid)
    if padded == grid:  # no padding: the plain attention does
        return _join(attention(_split(tokens, grid, size)), grid, size)
    # Both linear layers skip the padding: qkv of a zero token is the bias, and the projection of padding is cut off.
    qkv, bias = attention.qkv(tokens).unflatten(1, grid), attention.qkv.bias
    border = qkv.new_zeros(qkv.shape[-1]) if bias is None else bias.to(qkv.dtype)
    windows = attention.attend(_split(_Pad.apply(qkv, border, padded).flatten(1, 2), padded, size))
    rows, columns = grid
    inside = _join(windows, padded, size).unflatten(1, padded)[:, :rows, :columns]
    return attention.proj(inside.flatten(1, 2))


def _split(tokens: Tensor, grid: tuple[int, int], size: int) -> Tensor:
    """Divide tokens (B, rows * columns, C) into windows (B * windows, size * size, C), row by row."""
    rows, columns = (side // size for side in grid)
    return tokens.unflatten(1, (rows, size, columns, size)).transpose(2, 3).flatten(3, 4).flatten(0, 2)


def _join(windows: Tensor, grid: tuple[int, int], size: int) -> Tensor:
    """Undo `_split`."""
    rows, columns = (side // size for side in grid)
    return windows.unflatten(0, (-1, rows, columns)).unflatten(3, (size, size)).transpose(2, 3).flatten(1, 4)


class _Pad(Function):
    """Pad maps (B, rows, columns, C) to a larger grid, with `border` (C,) at the right and the bottom.

    Torch's own gradient of such an assignment would copy the full map.
    """

    @staticmethod
    def forward(ctx, maps: Tensor, border: Tensor, padded: tuple[int, int]) -> Tensor:
        ctx.inside = rows, columns = maps.shape[1:3]
        larger = maps.new_empty(len(maps), *padded, maps.shape[-1])
        larger[:, :rows, :columns] = maps
        larger[:, :rows, columns:] = border
        larger[:, rows:] = border
        return larger

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        rows, columns = ctx.inside
        border = gradient[:, :rows, columns:].sum((0, 1, 2)) + gradient[:, rows:].sum((0, 1, 2))
        return gradient[:, :rows, :columns], border, None  # a view: the padding's share went to `border`


class WindowBlock(Block):
    """A block over tokens (B, rows * columns, C) with attention within windows, or global attention.

    Stochastic depth drops the residual branch of a full image, not of single windows, so it follows the joining of
    windows. Global attention also takes prefix tokens.
    """

    def forward(self, tokens: Tensor, grid: tuple[int, int], window: int) -> Tensor:
        """Run the block; `grid` is (rows, columns), `window` the side in tokens or 0 for global attention."""
        if not window:
            return super().forward(tokens)
        attended = attend_in_windows(self.attn, self.norm1(tokens), grid, window)
        tokens = tokens + self.drop_path1(self.ls1(attended))
        return tokens + self.drop_path2(self.ls2(self.mlp(self.norm2(tokens))))
