"""K separately trained modules joined into one ViT, and a ViT split into modules."""
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from torch import Tensor

from mmincubation.checkpoints import CheckpointError, digest, infer_arch, read_tensors, sha256_of, vit_shapes
from mmincubation.checkpoints.keymaps import global_names, named_tensors, stage_depth
from mmincubation.vit.spec import Arch, Division

SHOWN = 8


@dataclass
class _Part:
    """One file: either ours (`header`, `tensors` under global names) or the public code's (`stages`).

    `module` is the module it holds, None where a public file does not show that; `modules` is K.
    """
    path: str
    modules: int
    module: int | None
    header: dict = field(default_factory=dict)
    tensors: dict = field(default_factory=dict)
    stages: list = field(default_factory=list)


def split(tensors: dict[str, Tensor], division: Division) -> list[dict[str, Tensor]]:
    """A whole ViT's tensors, one dict per module, under their own (global) names."""
    return [division.part(tensors, module) for module in range(len(division))]


def assemble(paths: Sequence[str | Path]) -> tuple[dict[str, Tensor], dict]:
    """Join parts, given in the order of their modules, into a ViT's tensors (timm's names) and its file header.

    A part is a file that `IncubationLoop` wrote for one module, or a checkpoint of the public Deep Incubation code,
    of which the i-th gives `model_stages[i]`. For public files the header's `assumed` says what they do not show.

    Raises:
        CheckpointError: a part is missing, given twice, in the wrong place, of another meta model, architecture or
            division, damaged, or the two kinds are mixed; the message names the files.
    """
    if not paths:
        raise CheckpointError('no parts given; name the files of all modules in order')
    parts = [_read(str(path)) for path in paths]
    public = [part.path for part in parts if part.stages]
    if public and len(public) < len(parts):
        own = next(part.path for part in parts if not part.stages)
        raise CheckpointError(f'{public[0]} is of the public code, {own} is ours; give parts of one kind')
    _check_same(parts)
    _check_places(parts)
    tensors, header = _join_public(parts) if public else _join(parts)
    return tensors, dict(header, kind='vit', parts=[sha256_of(part.path) for part in parts])


def _read(path: str) -> _Part:
    content, header = read_tensors(path)
    stages = content.get('model_stages')
    if isinstance(stages, list) and stages and all(named_tensors(stage) for stage in stages):
        return _Part(path, len(stages), _deepest(stages), stages=stages)
    if header.get('kind') != 'part':
        kind = header.get('kind', 'unknown')
        raise CheckpointError(f'{path}: not a part (kind: {kind}); give what the module phases wrote (--phase '
                              'module_<i>), or checkpoints of the public code with model_stages')
    return _Part(path, *_numbers(path, header), header=header, tensors=content)


def _numbers(path: str, header: dict) -> tuple[int, int]:
    """K and the module's number from the header of a part of ours, after checking the header."""
    try:
        division = Division.of(Arch.parse(header['arch']).depth, list(header['division']))
        module = range(len(division))[header['module']]
        header['meta_digest'].encode()
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise CheckpointError(f'{path}: damaged header ({error!r}); run its phase again') from error
    return len(division), module


def _deepest(stages: list[dict]) -> int | None:
    """The incubated stage: the others are the meta model's and have one block each."""
    depths = [stage_depth(stage) for stage in stages]
    return depths.index(max(depths)) if depths.count(max(depths)) == 1 else None


def _check_same(parts: list[_Part]) -> None:
    """All files are of the same run: division, architecture and (ours) meta model."""
    first = parts[0]
    for part in parts[1:]:
        if part.modules != first.modules:
            raise CheckpointError(f'{first.path} is of {first.modules} modules, {part.path} of {part.modules}; '
                                  'give parts of one division')
        for key in ('division', 'arch'):
            if part.header.get(key) != first.header.get(key):
                raise CheckpointError(f'{key} differs: {_differing(first, key, part)} in {first.path}, '
                                      f'{_differing(part, key, first)} in {part.path}; give parts of one run')
        if part.header.get('meta_digest') != first.header.get('meta_digest'):
            raise CheckpointError(f'{first.path} and {part.path} were incubated in different meta models; '
                                  'incubate all modules in one meta model')


def _differing(part: _Part, key: str, other: _Part) -> str:
    value, against = part.header[key], other.header[key]
    if isinstance(value, dict):
        return ', '.join(f'{name}={value[name]}' for name in value if value[name] != against.get(name))
    return str(value)


def _check_places(parts: list[_Part]) -> None:
    """Every module once and in its place."""
    modules = _claimed(parts)
    given = ', '.join(f'{part.path} (module {m})' for part, m in zip(parts, modules, strict=True))
    for a, b in combinations(range(len(parts)), 2):
        if modules[a] == modules[b] or Path(parts[a].path).samefile(parts[b].path):
            raise CheckpointError(f'{parts[a].path} and {parts[b].path} both hold module {modules[a]}; '
                                  'give every module once')
    if missing := sorted(set(range(parts[0].modules)) - set(modules)):
        raise CheckpointError(f'{len(parts)} of {parts[0].modules} parts given, missing {_modules(missing)}; '
                              f'got {given}')
    if len(parts) > parts[0].modules:
        raise CheckpointError(f'{len(parts)} parts given for {parts[0].modules} modules; leave out what is too many '
                              f'of {given}')
    if modules != sorted(modules):
        order = ' '.join(parts[modules.index(m)].path for m in range(len(parts)))
        raise CheckpointError(f'parts are not in the order of their modules: {given}; give them as {order}')


def _claimed(parts: list[_Part]) -> list[int]:
    """The module of each part; one that does not show it takes its place, or else the first place that is free."""
    known = {part.module for part in parts}
    free = [m for m in range(max(len(parts), parts[0].modules)) if m not in known]
    modules = []
    for place, part in enumerate(parts):
        modules.append(part.module)
        if part.module is None:
            modules[-1] = place if place in free else free[0]
            free.remove(modules[-1])
    return modules


def _modules(numbers: list[int]) -> str:
    return f'module{"s" if len(numbers) > 1 else ""} ' + ', '.join(map(str, numbers))


def _join(parts: list[_Part]) -> tuple[dict, dict]:
    header = {key: parts[0].header[key] for key in ('arch', 'division', 'meta_digest')}
    _check_shapes(parts, [part.tensors for part in parts], _expected(header['arch'], header['division']))
    return _merge(part.tensors for part in parts), header


def _join_public(parts: list[_Part]) -> tuple[dict, dict]:
    _check_one_meta(parts)
    division = [stage_depth(part.stages[i]) for i, part in enumerate(parts)]
    tensors = [global_names(part.stages[i], sum(division[:i])) for i, part in enumerate(parts)]
    try:
        arch, assumed = infer_arch(_merge(tensors))
        expected = _expected(arch, division)
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(f'{parts[0].path} and the files after it do not make up a ViT ({error!r})') from error
    header = dict(arch=arch, division=division, assumed=[assumed], meta_digest=_public_meta(parts))
    if len(parts) < 3:
        header['assumed'].append(f'{len(parts)} public file(s) cannot show whether they share one meta model')
    _check_shapes(parts, tensors, expected)
    return _merge(tensors), header


def _check_one_meta(parts: list[_Part]) -> None:
    """Stage j of files a and b is the frozen meta model's, so equal, unless j is a or b."""
    digests = [[digest(stage) for stage in part.stages] for part in parts]
    for a, b in combinations(range(len(parts)), 2):
        differing = [j for j in range(len(parts)) if j not in (a, b) and digests[a][j] != digests[b][j]]
        if differing:
            raise CheckpointError(f'{parts[a].path} and {parts[b].path} differ in stage {differing[0]}, which both '
                                  'should have from one frozen meta model; give the parts of one meta model in order')


def _public_meta(parts: list[_Part]) -> str | None:
    """Digest of the meta model, whose stage j is in every file but the j-th; None if there is only one file."""
    if len(parts) == 1:
        return None
    return digest(_merge(global_names(parts[j - 1].stages[j], j) for j in range(len(parts))))


def _expected(arch: dict, division: list[int]) -> list[dict]:
    return split(vit_shapes(arch), Division(division))


def _check_shapes(parts: list[_Part], given: list[dict], expected_shapes: list[dict]) -> None:
    """Every part has exactly its module's tensors, in the right shapes."""
    for part, tensors, expected in zip(parts, given, expected_shapes, strict=True):
        found = dict(missing=expected.keys() - tensors.keys(), unexpected=tensors.keys() - expected.keys())
        found['misshaped'] = {
            f'{name} {tuple(tensors[name].shape)}, expected {tuple(expected[name])}'
            for name in expected.keys() & tensors.keys() if tensors[name].shape != expected[name]}
        if any(found.values()):
            lists = '; '.join(f'{what}: {", ".join(sorted(names)[:SHOWN])}' for what, names in found.items() if names)
            raise CheckpointError(f'{part.path} does not hold its module as header or other parts say: {lists}; '
                                  'run its phase again')


def _merge(dicts: Iterable[dict]) -> dict:
    return {key: value for tensors in dicts for key, value in tensors.items()}
