"""Join K separately trained modules into one ViT, and split a ViT into modules."""
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
class _ModuleFile:
    """The file of one module: one of ours (`header`, `tensors` under global names), or the public code's (`stages`).

    `module` is the number of the module, None if a public file does not show it. `modules` is K.
    """
    path: str
    modules: int
    module: int | None
    header: dict = field(default_factory=dict)
    tensors: dict = field(default_factory=dict)
    stages: list = field(default_factory=list)


def split(tensors: dict[str, Tensor], division: Division) -> list[dict[str, Tensor]]:
    """Return the tensors of each module of a whole ViT, one dict per module, under their global names."""
    return [division.entries_of(tensors, module) for module in range(len(division))]


def assemble(paths: Sequence[str | Path]) -> tuple[dict[str, Tensor], dict]:
    """Join the files of all modules, in order, into a ViT; return its tensors (timm's names) and its file header.

    The files are those that `IncubationLoop` wrote, or checkpoints of the public Deep Incubation code, of which the
    i-th gives `model_stages[i]`. For public files the header's `assumed` lists what they do not show.

    Raises:
        CheckpointError: a file is missing, repeated, damaged or in the wrong place, or the files differ in kind, meta
            model, architecture or division; the message names the files.
    """
    if not paths:
        raise CheckpointError('no parts given; name the files of all modules in order')
    files = [_read_file(str(path)) for path in paths]
    public = [file.path for file in files if file.stages]
    if public and len(public) < len(files):
        own = next(file.path for file in files if not file.stages)
        raise CheckpointError(f'{public[0]} is of the public code, {own} is ours; give parts of one kind')
    _require_one_run(files)
    _require_every_module_in_order(files)
    tensors, header = _join_public(files) if public else _join(files)
    return tensors, dict(header, kind='vit', parts=[sha256_of(file.path) for file in files])


def _read_file(path: str) -> _ModuleFile:
    content, header = read_tensors(path)
    stages = content.get('model_stages')
    if isinstance(stages, list) and stages and all(named_tensors(stage) for stage in stages):
        return _ModuleFile(path, len(stages), _incubated_stage(stages), stages=stages)
    if header.get('kind') != 'part':
        kind = header.get('kind', 'unknown')
        raise CheckpointError(f'{path}: not a part (kind: {kind}); give what the module phases wrote (--phase '
                              'module_<i>), or checkpoints of the public code with model_stages')
    return _ModuleFile(path, *_module_numbers(path, header), header=header, tensors=content)


def _module_numbers(path: str, header: dict) -> tuple[int, int]:
    """Return K and the module's number from the header of one of our files, if the header is valid."""
    try:
        division = Division.of(Arch.parse(header['arch']).depth, list(header['division']))
        module = range(len(division))[header['module']]  # raises IndexError for a module that does not exist
        header['meta_digest'].encode()  # raises if it is missing or no string
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise CheckpointError(f'{path}: damaged header ({error!r}); run its phase again') from error
    return len(division), module


def _incubated_stage(stages: list[dict]) -> int | None:
    """Return the incubated stage: the others are meta blocks, one each. None if all stages have one block."""
    depths = [stage_depth(stage) for stage in stages]
    return depths.index(max(depths)) if depths.count(max(depths)) == 1 else None


def _require_one_run(files: list[_ModuleFile]) -> None:
    """Refuse files that differ in division, architecture or, for our files, in the meta model."""
    first = files[0]
    for file in files[1:]:
        if file.modules != first.modules:
            raise CheckpointError(f'{first.path} is of {first.modules} modules, {file.path} of {file.modules}; '
                                  'give parts of one division')
        for key in ('division', 'arch'):
            if file.header.get(key) != first.header.get(key):
                raise CheckpointError(f'{key} differs: {_differing(first, key, file)} in {first.path}, '
                                      f'{_differing(file, key, first)} in {file.path}; give parts of one run')
        if file.header.get('meta_digest') != first.header.get('meta_digest'):
            raise CheckpointError(f'{first.path} and {file.path} were incubated in different meta models; '
                                  'incubate all modules in one meta model')


def _differing(file: _ModuleFile, key: str, other: _ModuleFile) -> str:
    value, against = file.header[key], other.header[key]
    if isinstance(value, dict):
        return ', '.join(f'{name}={value[name]}' for name in value if value[name] != against.get(name))
    return str(value)


def _require_every_module_in_order(files: list[_ModuleFile]) -> None:
    """Refuse files that do not hold every module once, in order."""
    modules = _modules_of(files)
    found = ', '.join(f'{file.path} (module {m})' for file, m in zip(files, modules, strict=True))
    for a, b in combinations(range(len(files)), 2):
        # The same path twice also counts, since public files may not show their module.
        if modules[a] == modules[b] or Path(files[a].path).samefile(files[b].path):
            raise CheckpointError(f'{files[a].path} and {files[b].path} both hold module {modules[a]}; '
                                  'give every module once')
    if missing := sorted(set(range(files[0].modules)) - set(modules)):
        raise CheckpointError(f'{len(files)} of {files[0].modules} parts given, missing {_module_list(missing)}; '
                              f'got {found}')
    if len(files) > files[0].modules:
        raise CheckpointError(f'{len(files)} parts given for {files[0].modules} modules; leave out what is too many '
                              f'of {found}')
    if modules != sorted(modules):
        order = ' '.join(files[modules.index(m)].path for m in range(len(files)))
        raise CheckpointError(f'parts are not in the order of their modules: {found}; give them as {order}')


def _modules_of(files: list[_ModuleFile]) -> list[int]:
    """Return the module of each file. One that does not show it gets its position, or the first free one."""
    known = {file.module for file in files}
    free = [m for m in range(max(len(files), files[0].modules)) if m not in known]
    modules = []
    for place, file in enumerate(files):
        modules.append(file.module)
        if file.module is None:
            modules[-1] = place if place in free else free[0]
            free.remove(modules[-1])
    return modules


def _module_list(numbers: list[int]) -> str:
    return f'module{"s" if len(numbers) > 1 else ""} ' + ', '.join(map(str, numbers))


def _join(files: list[_ModuleFile]) -> tuple[dict, dict]:
    said = ('arch', 'division', 'meta_digest', 'mean', 'std')  # the last two not in files of earlier versions
    header = {key: files[0].header[key] for key in said if key in files[0].header}
    _require_shapes(files, [file.tensors for file in files], _expected_shapes(header['arch'], header['division']))
    return _merge(file.tensors for file in files), header


def _join_public(files: list[_ModuleFile]) -> tuple[dict, dict]:
    _require_one_meta(files)
    division = [stage_depth(file.stages[i]) for i, file in enumerate(files)]
    tensors = [global_names(file.stages[i], sum(division[:i])) for i, file in enumerate(files)]
    try:
        arch, assumed = infer_arch(_merge(tensors))
        expected = _expected_shapes(arch, division)
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(f'{files[0].path} and the files after it do not make up a ViT ({error!r})') from error
    header = dict(arch=arch, division=division, assumed=[assumed], meta_digest=_public_meta(files))
    if len(files) < 3:  # two files have no frozen stage in common that could be compared
        header['assumed'].append(f'{len(files)} public file(s) cannot show whether they share one meta model')
    _require_shapes(files, tensors, expected)
    return _merge(tensors), header


def _require_one_meta(files: list[_ModuleFile]) -> None:
    """Refuse public files of different meta models: stage j of file i is a frozen meta block, unless j is i."""
    digests = [[digest(stage) for stage in file.stages] for file in files]
    for a, b in combinations(range(len(files)), 2):
        differing = [j for j in range(len(files)) if j not in (a, b) and digests[a][j] != digests[b][j]]
        if differing:
            raise CheckpointError(f'{files[a].path} and {files[b].path} differ in stage {differing[0]}, which both '
                                  'should have from one frozen meta model; give the parts of one meta model in order')


def _public_meta(files: list[_ModuleFile]) -> str | None:
    """Return the digest of the meta model, whose block j is in every file but the j-th; None with only one file."""
    if len(files) == 1:
        return None
    return digest(_merge(global_names(files[j - 1].stages[j], j) for j in range(len(files))))


def _expected_shapes(arch: dict, division: list[int]) -> list[dict]:
    return split(vit_shapes(arch), Division(division))


def _require_shapes(files: list[_ModuleFile], tensors_of_files: list[dict], expected_shapes: list[dict]) -> None:
    """Refuse files that do not have exactly the tensors of their module, in the right shapes."""
    for file, tensors, expected in zip(files, tensors_of_files, expected_shapes, strict=True):
        found = dict(missing=expected.keys() - tensors.keys(), unexpected=tensors.keys() - expected.keys())
        found['misshaped'] = {
            f'{name} {tuple(tensors[name].shape)}, expected {tuple(expected[name])}'
            for name in expected.keys() & tensors.keys() if tensors[name].shape != expected[name]}
        if any(found.values()):
            lists = '; '.join(f'{what}: {", ".join(sorted(names)[:SHOWN])}' for what, names in found.items() if names)
            raise CheckpointError(f'{file.path} does not hold its module as header or other parts say: {lists}; '
                                  'run its phase again')


def _merge(dicts: Iterable[dict]) -> dict:
    return {key: value for tensors in dicts for key, value in tensors.items()}
