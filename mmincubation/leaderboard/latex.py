"""Write the leaderboard as LaTeX tables with booktabs."""
from __future__ import annotations

import re
import unicodedata

from mmincubation.errors import clean
from mmincubation.result import METRICS

from .table import LEGEND, Line, Section

HEAD = '% The preamble needs \\usepackage{booktabs}; then \\input this file.'
NAMES = ('model', 'data', 'method')
SIGNS = {
    '\\': '\\textbackslash{}', '&': '\\&', '%': '\\%', '$': '\\$', '#': '\\#', '_': '\\_', '{': '\\{', '}': '\\}',
    '~': '\\textasciitilde{}', '^': '\\textasciicircum{}', '<': '\\textless{}', '>': '\\textgreater{}',
    '|': '\\textbar{}', '"': "{''}", '`': '\\textasciigrave{}', "'": "{'}",
    '*': '{*}', '[': '{[}', ']': '{]}',  # behind the end of a row, \\ would take them for its own
    '±': '$\\pm$', 'Δ': '$\\Delta$', '×': '$\\times$', '·': '$\\cdot$', '→': '$\\to$', '≤': '$\\leq$', '≥': '$\\geq$',
    '−': '$-$', 'µ': '$\\mu$', 'μ': '$\\mu$', 'α': '$\\alpha$', 'β': '$\\beta$', '°': '$^\\circ$',
    '–': '\\textendash{}', '—': '\\textemdash{}',
    '‘': "{'}", '’': "{'}", '“': "{''}", '”': "{''}", '…': '\\dots{}', 'ß': '\\ss{}', 'æ': '\\ae{}', 'Æ': '\\AE{}',
    'œ': '\\oe{}', 'ø': '\\o{}', 'Ø': '\\O{}', 'ł': '\\l{}', 'Ł': '\\L{}', 'ı': '\\i{}'}
ACCENTS = {'\u0300': '`', '\u0301': "'", '\u0302': '^', '\u0303': '~', '\u0304': '=', '\u0306': 'u', '\u0307': '.',
           '\u0308': '"', '\u030a': 'r', '\u030b': 'H', '\u030c': 'v', '\u0327': 'c'}


def to_latex(sections: list[Section]) -> str:
    """Return one table for each section; the legend stands below the first. Remarks are numbered below their table."""
    legend = [note for note in LEGEND if not note.startswith('To baseline')]  # a column that these tables do not have
    tables = [_table(section, [] if i else legend) for i, section in enumerate(sections)]
    return '\n\n'.join([HEAD, *tables]) + '\n'


def escaped(text: str) -> str:
    """Return any text so that LaTeX prints it; the code of a character that its usual fonts do not have."""
    return re.sub('-(?=-)', '-{}', ''.join(map(_sign, clean(text))))  # -- would be a dash


def _sign(char: str) -> str:
    if char in SIGNS:
        return SIGNS[char]
    if char.isascii():
        return char
    parts = unicodedata.normalize('NFD', char)
    if len(parts) == 2 and parts[0].isascii() and parts[0].isalpha() and parts[1] in ACCENTS:
        return f'\\{ACCENTS[parts[1]]}{{{parts[0]}}}'
    return f'U+{ord(char):04X}'


def columns_of(section: Section) -> list[str]:
    """Return the titles of the columns that the table has: names, metrics, the difference, runs and cost."""
    metrics = {title for title, _, _ in METRICS[section.task]}
    return [title for title in section.columns
            if title in (*NAMES, *metrics, 'n', 'cost') or title.startswith('Δ ')]


def _table(section: Section, legend: list[str]) -> str:
    """Return one table with its caption and label; `legend` are notes for all tables."""
    columns, numbers = columns_of(section), {}
    for line in section.lines:
        if said := '; '.join(line.remarks):
            numbers.setdefault(said, len(numbers) + 1)
    rows = [_row(line, columns, numbers.get('; '.join(line.remarks))) for line in section.lines]
    notes = [f'\\textsuperscript{{{number}}}~{escaped(remark)}.' for remark, number in numbers.items()]
    notes += [_sentence(note) for note in (*section.notes, *legend)]
    return '\n'.join([
        '\\begin{table}', '\\centering\\footnotesize\\setlength{\\tabcolsep}{4pt}',
        f'\\caption{{{escaped(section.title)}, in percent.}}', f'\\label{{tab:{section.task.replace(" ", "-")}}}',
        f'\\begin{{tabular}}{{{"".join("l" if title in NAMES else "r" for title in columns)}}}', '\\toprule',
        _joined(map(escaped, columns)), '\\midrule', *rows, '\\bottomrule', '\\end{tabular}',
        *(['', '\\smallskip', '\\begin{minipage}{\\linewidth}\\raggedright', '\n\n'.join(notes), '\\end{minipage}']
          if notes else []), '\\end{table}'])


def _sentence(text: str) -> str:
    return escaped(text if text.endswith('.') else f'{text}.')


def _row(line: Line, columns: list[str], note: int | None) -> str:
    """Return a line as a row; its method has the number of its remark."""
    cells = [_cell(line.cells[title], title in line.bold) for title in columns]
    if note is not None:
        cells[columns.index('method')] += f'\\textsuperscript{{{note}}}'
    return _joined(cells)


def _cell(text: str, bold: bool) -> str:
    """Return a cell: '-' alone as a dash, a sign before a number as a minus."""
    made = '--' if text == '-' else re.sub(r'^-(?=\d)', '$-$', escaped(text))
    return f'\\textbf{{{made}}}' if bold else made


def _joined(cells) -> str:
    return ' & '.join(cells) + ' \\\\'
