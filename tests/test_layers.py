"""The house has one direction: a file imports only from rooms above it."""
import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / 'mmincubation'
ROOMS = ['registry', 'atomic', 'result', 'compat', 'models', 'checkpoints', 'exact', 'incubation', 'engine', 'datasets',
         'downstream', 'check', 'benchmark', 'leaderboard', 'pipeline']
FILES = sorted(PACKAGE.rglob('*.py'))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def imports(path: Path, top_level: bool = False) -> list[str]:
    """Absolute names of the modules that a file imports, anywhere or (top_level) when it is itself imported."""
    tree = ast.parse(path.read_text())
    package = ['mmincubation', *path.relative_to(PACKAGE).parent.parts]
    names = []
    for node in (tree.body if top_level else ast.walk(tree)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            names += ['.'.join([*base, *([node.module] if node.module else []), alias.name]) for alias in node.names]
    return names


def test_every_file_has_a_room():
    assert {room(p) for p in FILES} - {'__init__'} == set(ROOMS)


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_upwards(path):
    here = room(path)
    allowed = ROOMS if here == '__init__' else ROOMS[:ROOMS.index(here) + 1]
    for name in imports(path):
        if name.startswith('mmincubation.'):
            used = name.split('.')[1]
            assert used in allowed or used.startswith('__'), f'{here} imports {name}, a room below it'


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_mmdet_and_mmseg_are_never_imported_at_import_time(path):
    assert not [n for n in imports(path, top_level=True) if n.split('.')[0] in ('mmdet', 'mmseg')]


@pytest.mark.parametrize('path', [p for p in FILES if room(p) in
                                  ('atomic', 'leaderboard', 'result', 'pipeline', '__init__')],
                         ids=lambda p: str(p.relative_to(PACKAGE)))
def test_tables_need_no_torch(path):
    assert not [n for n in imports(path) if n.split('.')[0] in ('torch', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'timm')]


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path):
    assert len(path.read_text().splitlines()) < 300
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, f'{node.name} has {node.end_lineno - node.lineno + 1} lines'
