"""The plain Vision Transformer, its division into modules, and its sharding over the ranks."""
from .sharding import FullyShard
from .spec import ARCHS, Arch, Division, arch_of
from .transformer import VisionTransformer

__all__ = ['ARCHS', 'Arch', 'Division', 'FullyShard', 'VisionTransformer', 'arch_of']
