"""The package has one direction: a file imports only from layers above its own."""
import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / 'mmincubation'
LAYERS = ['errors', 'registry', 'atomic', 'hashes', 'provenance', 'result', 'compat', 'vit', 'checkpoints', 'models',
          'resumable', 'incubation', 'datasets', 'downstream', 'probes', 'config', 'hooks', 'recovery', 'engine',
          'check', 'benchmark', 'leaderboard', 'inference', 'suite', 'demo']
FILES = sorted(PACKAGE.rglob('*.py'))


def layer(path: Path) -> str:
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


def registered() -> dict[str, str]:
    """The layer that registers each name, from the decorators in the code."""
    found = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            decorators = [ast.unparse(d) for d in getattr(node, 'decorator_list', [])]
            if any('.register_module(' in text for text in decorators):
                found[node.name] = layer(path)
    return found


def types_named(path: Path) -> list[str]:
    """Registered names in the strings `'mmincubation.X'` of a file, docstrings left aside."""
    strings = [node.value for node in ast.walk(ast.parse(path.read_text()))
               if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [found[1] for text in strings if (found := re.fullmatch(r'mmincubation\.([A-Z]\w*)', text))]


def test_every_file_has_a_layer():
    assert {layer(p) for p in FILES} - {'__init__'} == set(LAYERS)


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_upwards(path):
    here = layer(path)
    allowed = LAYERS if here == '__init__' else LAYERS[:LAYERS.index(here) + 1]
    for name in imports(path):
        if name.startswith('mmincubation.'):
            used = name.split('.')[1]
            assert used in allowed or used.startswith('__'), f'{here} imports {name}, a layer below it'


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_registered_names_point_upwards(path):
    owners, here = registered(), layer(path)
    for name in types_named(path):
        assert LAYERS.index(owners[name]) <= LAYERS.index(here), f'{here} names {name}, which {owners[name]} registers'


def test_names_are_found_and_resolved():
    owners = registered()
    assert {'CheckedDataset', 'FullyShard', 'ViTClassifier', 'CostMeter', 'IncubationLoop'} <= owners.keys()
    assert 'CheckedDataset' in types_named(PACKAGE / 'recovery/data_errors.py')


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_mmdet_and_mmseg_are_never_imported_at_import_time(path):
    assert not [n for n in imports(path, top_level=True) if n.split('.')[0] in ('mmdet', 'mmseg')]


@pytest.mark.parametrize('path', [
    p for p in FILES if layer(p) in ('errors', 'atomic', 'leaderboard', 'result', '__init__')],
    ids=lambda p: str(p.relative_to(PACKAGE)))
def test_tables_need_no_torch(path):
    assert not [n for n in imports(path) if n.split('.')[0] in ('torch', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'timm')]


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path):
    assert len(path.read_text().splitlines()) <= 300
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= 40, f'{node.name} has {lines} lines'
