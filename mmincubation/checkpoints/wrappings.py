"""Find the ViT in what a program saved: the one container and prefix under which a whole one lies."""
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmincubation.errors import CheckpointError

from .keymaps import FORMATS, Format, entries_below

# Words that torch puts into keys: data parallel and averaged models, torch.compile, FSDP, activation checkpointing.
WRAPPERS = {'module', '_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module'}
COUNTERS = {'n_averaged', 'steps'}  # of averaged models, torch's and mmengine's
# Where a file has both, the first is taken, as the program that wrote it does: (first, second, what is said).
PREFERRED = (
    (('state_dict_ema', ), ('state_dict', ), 'EMA weights (state_dict_ema); those of the last step are left out'),
    (('state_dict', ), ('ema_state_dict', ), 'EMA weights: mmengine puts them into state_dict when it saves; the plain '
     'ones, then in ema_state_dict, are left out'),
    (('model', ), ('model_ema', ), 'model_ema is left out'),
    (('state_dict', 'target'), ('state_dict', 'meta'), 'the meta model is left out'),
)


@dataclass(frozen=True)
class Found:
    """A whole ViT below `prefix` in the dict that `containers` lead to; `tensors` has all keys of that dict."""
    format: Format
    containers: tuple[str, ...]
    prefix: str
    tensors: dict[str, Tensor]

    @property
    def words(self) -> tuple[str, ...]:
        """Containers and prefix, word by word."""
        return (*self.containers, *self.prefix.split('.')[:-1])

    @property
    def body(self) -> dict[str, Tensor]:
        """The tensors below the prefix, without it."""
        return entries_below(self.tensors, self.prefix)

    @property
    def outer(self) -> str:
        """The prefix without its last word: a classifier's, whose heads lie beside its backbone."""
        return ''.join(f'{word}.' for word in self.prefix.split('.')[:-2])

    @property
    def heads(self) -> list[str]:
        """The keys of the heads that the format has beside the backbone."""
        named = tuple(self.outer + head for head in self.format.heads)
        return [key for key in self.tensors if self.prefix and key.startswith(named)]

    def vit(self) -> dict[str, Tensor]:
        """Return backbone and heads under timm's names."""
        heads = {key.removeprefix(self.outer): self.tensors[key] for key in self.heads}
        return self.format.to_timm({self.format.root + key: value for key, value in self.body.items()} | heads)

    def left_out(self) -> list[str]:
        """Return one note on the tensors around the ViT that are not taken; none if there are none."""
        beside = [key for key in self.tensors if not key.startswith(self.prefix) and key not in set(self.heads)]
        words = Counter(key.split('.')[0] for key in beside)
        names = ', '.join(f'{word} ({count})' for word, count in words.items())
        return [f'left out beside {self}: {names}'] if beside else []

    def __str__(self) -> str:
        return '.'.join(self.words)


def find_vit(content: dict, prefix: str | None = None) -> tuple[Found | None, list[str]]:
    """Return the one ViT in what was saved, None if there is none, and notes on what was chosen and left out.

    `prefix` chooses where there are several: words of the place, such as `teacher` or `backbone.`.

    Raises:
        CheckpointError: there are several different ones, or none below `prefix`.
    """
    found = [vit for containers, tensors in _dicts_of_tensors(content) for vit in _vits_in(containers, tensors)]
    found, notes = _preferred(_chosen(found, prefix))
    if not found:
        return None, []
    if different := [vit for vit in found[1:] if not _equal(vit.body, found[0].body)]:
        raise CheckpointError(f'holds different ViTs, {_names([found[0], *different])}: choose one, by prefix=... in '
                              'init_cfg or by --prefix of tools/convert.py')
    chosen = [f'taken from {found[0]}, as prefix says'] if prefix else []
    return found[0], [*chosen, *notes, *found[0].left_out()]


def largest_dict(content: dict) -> dict:
    """Return the largest dict of tensors in `content`, or `content` itself if there is none."""
    return max((tensors for _, tensors in _dicts_of_tensors(content)), key=len, default=content)


def _dicts_of_tensors(content: dict) -> Iterator[tuple[tuple[str, ...], dict]]:
    """Yield the dicts in `content` that hold tensors by name, with the keys that lead to them."""
    left, seen = [((), content)], set()  # visit each once: a dict can contain itself
    while left:
        containers, value = left.pop(0)
        if not isinstance(value, dict) or id(value) in seen:
            continue
        seen.add(id(value))
        named = {key: item for key, item in value.items() if isinstance(key, str)}
        arrays = {key: torch.from_numpy(np.array(item)) for key, item in named.items() if isinstance(item, np.ndarray)}
        if tensors := arrays | {key: item for key, item in named.items() if isinstance(item, Tensor)}:
            yield containers, _unwrapped(tensors)
        left += [((*containers, key), item) for key, item in named.items() if not key.startswith('optim')]


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take the words of torch's wrappers out of the keys, unless two keys become one."""
    out = {'.'.join(word for word in key.split('.') if word not in WRAPPERS): value
           for key, value in tensors.items() if key not in COUNTERS}
    return out if len(out) == len(tensors.keys() - COUNTERS) else tensors


def _vits_in(containers: tuple[str, ...], tensors: dict[str, Tensor]) -> Iterator[Found]:
    for known in FORMATS:
        for key in tensors:
            prefix = key.removesuffix(known.patch)
            # The public code's copies of its modules (`stages.0.`) are no ViTs.
            if prefix == key or prefix and prefix[-1] != '.' or prefix.split('.')[-3:-2] == ['stages']:
                continue
            if any(other.startswith(prefix + known.block) for other in tensors):
                yield Found(known, containers, prefix, tensors)


def _chosen(found: list[Found], prefix: str | None) -> list[Found]:
    wanted = '.'.join(word for word in (prefix or '').strip('.').split('.') if word not in WRAPPERS)
    chosen = [vit for vit in found if f'.{wanted}.' in f'.{vit}.'] if wanted else found
    if found and not chosen:
        raise CheckpointError(f'has no ViT below the prefix {prefix!r}, but {_names(found)}; '
                              f'{"leave prefix out" if len(found) == 1 else "give one of these as prefix"}')
    return chosen


def _names(found: list[Found]) -> str:
    return ', '.join(f"at '{vit}'" if vit.words else 'the file itself' for vit in found)


def _preferred(found: list[Found]) -> tuple[list[Found], list[str]]:
    notes = []
    for first, second, note in PREFERRED:
        rest = [vit for vit in found if vit.words[:len(second)] != second]
        if len(rest) < len(found) and any(vit.words[:len(first)] == first for vit in rest):
            found, notes = rest, [*notes, note]
    return found, notes


def _equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(
        (a[key].shape, a[key].dtype) == (b[key].shape, b[key].dtype) and torch.equal(a[key], b[key]) for key in a)
