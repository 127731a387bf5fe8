"""The LaTeX form compiles, whatever names the results have."""
import re
import shutil
import subprocess

import pytest

from mmincubation.leaderboard.collect import collect
from mmincubation.leaderboard.latex import escaped, to_latex
from mmincubation.leaderboard.reported import Reported, add_reported, paper_rows
from mmincubation.leaderboard.table import make_sections
from tests.helpers.results import put

NASTY = r"""\end{table} \input{/etc/passwd} & % $ # _ { } ~ ^ < > | " ' ` ± Δ é Łukasz ñ ü 模型 🙂 -- [1] * ^^41"""
PAGE = '\\documentclass{article}\n\\usepackage[margin=2cm]{geometry}\n\\usepackage{booktabs}\n\\begin{document}\n'


@pytest.fixture(name='sections')
def fixture_sections(tmp_path):
    folder = tmp_path / 'runs'
    for seed, (e2e, incub) in enumerate([(70., 75.5), (71., 76.4), (70.4, 75.9)]):
        put(folder, 'e2e', e2e, seed=seed)
        put(folder, 'incub', incub, seed=seed)
        put(folder, 'grow_only', e2e - 5 - 0.2 * seed, seed=seed)
    for i, name in enumerate((NASTY, '[2ex]', '*', '\\\\', '-', '', 'a\nb\x1b\x00')):
        put(folder, f'e2e_{i}', 0.4, 'detection', experiment=dict(
            task='detection', model=name, method=name, data=NASTY[:40], note=NASTY))
    return add_reported(make_sections(collect([folder])[0]), [*paper_rows(), Reported(
        'reported', 'segmentation', NASTY, 'ADE20K', 'theirs', {'mIoU': 45.0}, NASTY, cost='50 % of a day')])


def compiled(text: str, folder) -> str:
    """Compile a document with these tables; return the log."""
    (folder / 'page.tex').write_text(f'{PAGE}{text}\\end{{document}}\n')
    command = ['pdflatex', '-interaction=nonstopmode', '-halt-on-error', '-no-shell-escape', 'page.tex']
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=120)
    log = done.stdout.decode('latin-1')
    assert done.returncode == 0, log[-2000:]
    return log


def has_latex() -> bool:
    """Whether there is a pdflatex with the packages of the page."""
    return bool(shutil.which('pdflatex')) and all(
        subprocess.run(['kpsewhich', name], capture_output=True).stdout for name in ('booktabs.sty', 'geometry.sty'))


@pytest.mark.skipif(not has_latex(), reason='no pdflatex with booktabs here; the syntax is checked without it')
def test_it_compiles(sections, tmp_path):
    log = compiled(to_latex(sections), tmp_path)
    assert (tmp_path / 'page.pdf').stat().st_size > 10_000
    assert 'Missing character' not in log and 'undefined' not in log and 'Float too large' not in log


def without_escapes(text: str) -> str:
    r"""The text without escaped signs; what is left of & % $ # _ ~ ^ is LaTeX's own."""
    return re.sub(r'\\[\\&%$#_{}~^`\'".=]', '', text)


def test_syntax(sections):
    text = to_latex(sections)
    tables = text.split('\\begin{table}')[1:]
    assert [re.search(r'\\label\{(.*)\}', table)[1] for table in tables] == [
        'tab:classification', 'tab:detection', 'tab:segmentation']
    for table in tables:
        plain = without_escapes(table)
        assert plain.count('{') == plain.count('}') and plain.count('$') % 2 == 0
        body = plain.split('\\toprule')[1].split('\\bottomrule')[0].replace('\\midrule', '').strip().splitlines()
        assert len({row.count('&') for row in body if row}) == 1 and all('%' not in row for row in body)
        for command in ('\\begin{tabular}', '\\end{tabular}', '\\end{table}', '\\caption{', '\\midrule'):
            assert table.count(command) == 1, command
    assert text.count('\\input') == 1  # in the comment of the first line


def test_content(sections):
    text = to_latex(sections)
    classification = text.split('\\begin{table}')[1]
    row = next(line for line in classification.splitlines() if ' & incub' in line and 'digits' in line)
    assert row.startswith('vit\\_demo & digits & incub\\textsuperscript{')
    assert re.search(r'& 75\.9 \$\\pm\$ 1\.1 & \\textbf\{\+5\.5 \$\\pm\$ 0\.1\} & 3 & 16 k blocks', row)
    grown = next(line for line in classification.splitlines() if 'grow\\_only' in line)
    assert '\\textbf{$-$5.2 $\\pm$ 0.5}' in grown and '-5' not in grown
    assert 'incub{*}\\textsuperscript' in classification and 'no meta-model control.' in classification
    assert text.count('half the width of the 95') == 1 and '& - &' not in text


@pytest.mark.parametrize('text, expected', [
    ('a_b & 50 %', r'a\_b \& 50 \%'), ('\\{}', r'\textbackslash{}\{\}'), ('±Δ', r'$\pm$$\Delta$'),
    ('é模', r"\'{e}U+6A21"),
    ('--', '-{}-'), ('\x1b[0m\n', '?{[}0m?'), ('^^41', r'\textasciicircum{}\textasciicircum{}41'),
    ('<|>~#$', r'\textless{}\textbar{}\textgreater{}\textasciitilde{}\#\$')])
def test_escaped(text, expected):
    assert escaped(text) == expected


def test_no_sections():
    assert '\\begin' not in to_latex([])
