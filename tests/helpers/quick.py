"""What makes small runs quick and leaves what they do as it is."""
import ast
import gc

from mmengine.config import config


def unparsed(text: str, **_) -> tuple[str, bool]:
    """In the place of yapf's `FormatCode`: the same code in few lines."""
    return ast.unparse(ast.parse(text)), True


def install() -> None:
    """Lay out no config as text (yapf takes up to half the time of a small run), and let garbage collection, which
    mmengine asks for with each data set, leave alone what has been imported."""
    config.FormatCode = unparsed
    gc.collect()
    gc.freeze()
