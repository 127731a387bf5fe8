"""Define the shape of a ViT, and its division into modules."""
import re
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches

HEAD_KEYS = ('norm', 'head')
STEM_KEYS = ('patch_embed', 'cls_token', 'pos_embed')
SIZES = ('embed_dim', 'depth', 'num_heads')
ABOVE_ZERO = (*SIZES, 'patch_size', 'img_size', 'mlp_ratio', 'norm_eps')
RENAMED = {'dim': 'embed_dim', 'heads': 'num_heads'}  # fields of earlier versions: timm's names since

KINDS = {
    int: ((int, ), 'a whole number'),
    float: ((int, float), 'a number'),
    bool: ((bool, ), 'True or False'),
    str: ((str, ), 'text'),
    float | None: ((int, float, type(None)), 'a number or None'),
}


@dataclass(frozen=True)
class Arch:
    """The shape of a plain ViT; names as in timm.

    `num_classes` is 0 for weights without a head. `init_values` is LayerScale's first value (None: no LayerScale).
    `norm_eps` is the epsilon of every LayerNorm.
    `global_pool` says what the head reads: 'token', the class token, as in the paper; or 'avg', the mean of the patch
    tokens (timm's with `fc_norm=False`), which then know more of the class: dense tasks gain from it.
    """
    embed_dim: int
    depth: int
    num_heads: int
    patch_size: int = 16
    img_size: int = 224
    num_classes: int = 1000
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    norm_eps: float = 1e-6
    init_values: float | None = None
    global_pool: str = 'token'

    def __post_init__(self):
        self._require_types()
        self._require_ranges()
        if self.embed_dim % self.num_heads:
            raise ValueError(f'embed_dim={self.embed_dim} is not divisible by num_heads={self.num_heads}')
        if self.img_size % self.patch_size:
            raise ValueError(f'img_size={self.img_size} is not a multiple of patch_size={self.patch_size}')
        if self.global_pool not in ('token', 'avg'):
            raise ValueError(f"global_pool={self.global_pool!r}: give 'token' or 'avg'")

    def _require_types(self) -> None:
        """Values come from configs and files: a text would fail later, in other words."""
        for field in fields(self):
            kinds, words = KINDS[field.type]
            value = getattr(self, field.name)
            if not isinstance(value, kinds) or isinstance(value, bool) and bool not in kinds:
                raise ValueError(f'arch: {field.name}={value!r}: give {words}')

    def _require_ranges(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ABOVE_ZERO and not value > 0:
                raise ValueError(f'{field.name}={value}: give {KINDS[field.type][1]} above 0')
        if self.num_classes < 0:
            raise ValueError(f'num_classes={self.num_classes}: give a whole number from 0 on')

    @property
    def grid(self) -> int:
        """The number of patches along one side of the training image."""
        return self.img_size // self.patch_size

    def with_depth(self, depth: int) -> 'Arch':
        """Return this shape with another number of blocks, such as the meta model's."""
        return replace(self, depth=depth)

    def to_dict(self) -> dict:
        """Return the fields as a dict of plain values, for file headers."""
        return asdict(self)

    @classmethod
    def parse(cls, arch: 'str | dict | Arch') -> 'Arch':
        """Read an `Arch`, a name that `named` knows, or a dict of fields; with a key `name` the fields change that one.

        Raises:
            ValueError: the name or a field is unknown; the message lists the valid ones. Or it is still `AUTO`, which
                `checkpoints.settle_arch` replaces.
        """
        if isinstance(arch, Arch):
            return arch
        changes = {'name': arch} if isinstance(arch, str) else dict(arch)
        # Configs of earlier versions get a clear message instead of an unknown field.
        if old := [f'{key} is called {RENAMED[key]}' for key in RENAMED if key in changes]:
            raise ValueError(f'arch: {" and ".join(old)}, as in timm; rename the key')
        name = changes.pop('name', None)
        valid = [field.name for field in fields(cls)]
        if unknown := sorted(set(changes) - set(valid)):
            near = sum((get_close_matches(field, valid, 1) for field in unknown), [])
            raise ValueError(f'unknown arch fields {unknown}; {f"nearest: {near}; " if near else ""}valid: {valid}')
        if name is None:
            if missing := [field for field in SIZES if field not in changes]:
                raise ValueError(f'arch: {", ".join(missing)} missing; give them, or the name of a known one: '
                                 f"name='vit_base' ({', '.join(ARCHS)}, auto)")
            return cls(**changes)
        # A name behind all numbers was merged into a base's arch, whose numbers would win. Numbers behind it are meant.
        if {*SIZES} <= changes.keys() and [*dict(arch)][-1] == 'name':
            raise ValueError(f'arch: {", ".join(f"{key}={changes[key]}" for key in SIZES)} leave nothing of '
                             f'name={name!r}; give one or the other. In a config with a _base_ that gives the first: '
                             f'arch=dict(_delete_=True, name={name!r}, ...)')
        return replace(named(name), **changes)


def arch_of(model) -> Arch | None:
    """Return the architecture of the first ViT in a module, the target of an incubation; None without one."""
    found = (getattr(module, 'arch', None) for module in model.modules())
    return next((arch for arch in found if isinstance(arch, Arch)), None)


# ViT-H of Deep Incubation has no qkv bias and another epsilon than timm's vit_huge (see the public checkpoints).
ARCHS = {
    'vit_tiny': Arch(embed_dim=192, depth=12, num_heads=3),
    'vit_small': Arch(embed_dim=384, depth=12, num_heads=6),
    'vit_base': Arch(embed_dim=768, depth=12, num_heads=12),
    'vit_large': Arch(embed_dim=1024, depth=24, num_heads=16),
    'vit_huge': Arch(embed_dim=1280, depth=32, num_heads=16, patch_size=14, qkv_bias=False, norm_eps=1e-5),
}
ARCHS |= {name.replace('vit', 'deit'): ARCHS[name] for name in ('vit_tiny', 'vit_small', 'vit_base')}
AUTO = 'auto'  # the architecture of the file that a model begins from
LONG_NAME = re.compile(r'(?P<short>\w+)_patch(?P<patch>\d+)_(?P<image>\d+)')


def named(name: str) -> Arch:
    """Return the architecture of a name of `ARCHS`, mmpretrain's with hyphens, or timm's such as
    `vit_small_patch16_224`.

    timm's ViT-H, `vit_huge_patch14_224`, is another than `vit_huge`, which is that of Deep Incubation.

    Raises:
        ValueError: the name is unknown, or `AUTO`.
    """
    if name == AUTO:
        raise ValueError("arch='auto' is that of a file, which this model does not begin from; give a name "
                         f'({", ".join(ARCHS)}), or a ViTBackbone or ViTClassifier '
                         "init_cfg=dict(type='Pretrained', checkpoint=PATH)")
    plain = str(name).replace('-', '_')
    if plain in ARCHS:
        return ARCHS[plain]
    long = LONG_NAME.fullmatch(plain)
    if not long or long['short'] not in ARCHS:
        near = get_close_matches(plain, ARCHS, 1)
        raise ValueError(f'unknown arch {name!r}; {f"nearest: {near[0]}; " if near else ""}known names: '
                         f'{", ".join(ARCHS)}, also as vit_small_patch16_224; any other shape is a dict: '
                         "arch=dict(embed_dim=192, depth=12, num_heads=3), or 'auto' with init_cfg")
    timms = dict(qkv_bias=True, norm_eps=1e-6)
    return replace(ARCHS[long['short']], patch_size=int(long['patch']), img_size=int(long['image']), **timms)


def rate_faults(place: str, rate) -> list[str]:
    """Return what is wrong with a rate of stochastic depth at a place of the config; nothing for 0 <= rate < 1."""
    right = isinstance(rate, int | float) and 0 <= rate < 1
    return [] if right else [f'{place}={rate!r:.60}: give a number from 0 to below 1']


def layer_of(key: str, depth: int, rest: tuple[str, ...] = HEAD_KEYS) -> int:
    """Return the number of the layer that owns a parameter, named as in timm (`blocks.7.attn.qkv.weight`).

    The stem is 0, block i is i + 1, and all that follows the blocks is `depth + 1`: names that begin with an entry of
    `rest`. BEiT (arXiv:2106.08254) counts layers so for its layer-wise learning rates.

    Raises:
        KeyError: a ViT of `depth` blocks has no such parameter.
    """
    first = key.split('.')[0]
    if first in STEM_KEYS:
        return 0
    if first in rest:
        return depth + 1
    match = re.match(r'blocks\.(\d+)\.', key)
    if match is None or int(match[1]) >= depth:
        raise KeyError(f'{key!r} is not a parameter of a ViT of {depth} blocks')
    return int(match[1]) + 1


@dataclass(frozen=True)
class Division:
    """The division of D consecutive blocks into K modules.

    `depths` are the numbers of blocks of the modules, in order. The first module also owns the stem; the last one also
    owns the norm and the head. The meta model has `meta_depth` blocks for each module; the paper has one.
    """
    depths: tuple[int, ...]
    meta_depth: int = 1

    def __post_init__(self):
        object.__setattr__(self, 'depths', tuple(self.depths))  # the class is frozen, and headers have lists
        if not self.depths or min(self.depths) < 1:
            raise ValueError(f'every module needs at least one block, got depths {self.depths}')
        if type(self.meta_depth) is not int or not 1 <= self.meta_depth <= min(self.depths):
            raise ValueError(f'meta_depth={self.meta_depth!r:.60}: give a whole number from 1 to the depth of the '
                             f'smallest module, {min(self.depths)}')

    @classmethod
    def of(cls, depth: int, modules: 'int | list[int]', meta_depth: int = 1) -> 'Division':
        """Divide `depth` blocks into that many modules of equal depth, or into modules of the listed depths.

        Raises:
            ValueError: the modules do not add up to `depth`, or `meta_depth` is not from 1 to the smallest of them.
        """
        if not isinstance(modules, int) and not (
                isinstance(modules, list | tuple) and all(isinstance(depth, int) for depth in modules)):
            raise ValueError(f'modules={modules!r:.60}: give a number of modules, or a list of their depths')
        if isinstance(modules, int):
            if not 1 <= modules <= depth or depth % modules:
                raise ValueError(f'{depth} blocks do not divide into {modules} equal modules; '
                                 'give a divisor, or a list of depths')
            return cls((depth // modules, ) * modules, meta_depth)
        if sum(modules) != depth:
            raise ValueError(f'modules of {list(modules)} blocks add up to {sum(modules)}, the model has {depth}')
        return cls(tuple(modules), meta_depth)

    def __len__(self) -> int:
        return len(self.depths)

    @property
    def depth(self) -> int:
        """The number of blocks of the whole model."""
        return sum(self.depths)

    @property
    def meta(self) -> 'Division':
        """The division of the meta model: its part i stands for module i."""
        return Division((self.meta_depth, ) * len(self.depths))

    def span(self, module: int) -> range:
        """Return the global numbers of a module's blocks."""
        self._require_module(module)
        start = sum(self.depths[:module])
        return range(start, start + self.depths[module])

    def module_of(self, key: str) -> int:
        """Return the module that owns a parameter, named as in timm (`blocks.7.attn.qkv.weight`).

        Raises:
            KeyError: no ViT has such a parameter, or its block is beyond the model's depth.
        """
        # Layer 0, the stem, goes with the first block; norm and head go with the last.
        block = min(max(layer_of(key, self.depth) - 1, 0), self.depth - 1)
        return next(i for i in range(len(self)) if block in self.span(i))

    def entries_of(self, tensors: dict, module: int) -> dict:
        """Return the entries of a whole model's state dict that a module owns, under their global names."""
        self._require_module(module)
        return {key: value for key, value in tensors.items() if self.module_of(key) == module}

    def _require_module(self, module: int) -> None:
        if not 0 <= module < len(self):
            raise ValueError(f'module {module} does not exist; the division has modules 0..{len(self) - 1}')
