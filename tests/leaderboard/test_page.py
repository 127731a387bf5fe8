"""The page is one file that loads nothing, shows names as text, and sorts and filters in a real browser."""
import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from PIL import Image

from mmincubation.errors import clean
from mmincubation.leaderboard.collect import collect
from mmincubation.leaderboard.page import sort_value, to_html
from mmincubation.leaderboard.plot import plot_costs
from mmincubation.leaderboard.table import LEGEND, make_sections
from tests.helpers.boards import put_suite
from tests.helpers.chromium import PROGRAM, Chromium
from tests.helpers.paths import ROOT
from tests.helpers.results import draw, phase, put

needs_chromium = pytest.mark.skipif(PROGRAM is None, reason='no `chromium` here; Debian has a package of this name')
BODIES = "[...document.querySelectorAll('table.board')[{table}].tBodies]"


class Tags(HTMLParser):
    """Collect the tags of a page with their attributes, and the text of each element with an attribute `data-value`."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.cells, self._open = [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ('td', 'th'):
            self._open = 'data-value' in dict(attrs)
            self.cells += [''] * self._open

    def handle_data(self, data):
        if self._open:
            self.cells[-1] += data

    def handle_endtag(self, tag):
        self._open &= tag not in ('td', 'th')


def page_of(folder) -> str:
    runs, problems, *_ = collect([folder])
    assert not problems
    return to_html(make_sections(runs), plot_costs(runs))


def foreign(sections):
    """Add a quoted and a reported row to the first section."""
    line = sections[0].lines[0]
    for kind, method, mark, value in (
            ('quoted', 'paper_e2e', ' *', '82.4'), ('reported', 'theirs', ' (reported)', '80.0')):
        cells = {column: '-' for column in line.cells} | {
            'model': 'ViT-B', 'data': 'ImageNet-1k', 'method': method + mark, 'top-1': value}
        more = dict(bold=frozenset(), remarks=['table 3'], details=[], record=dict(method=method), runs=[])
        sections[0].lines.append(replace(line, kind=kind, cells=cells, **more))
    return sections


@pytest.fixture(scope='module')
def suite(tmp_path_factory):
    """A page of a whole suite, as a file."""
    folder = tmp_path_factory.mktemp('suite')
    put_suite(folder)
    runs, *_ = collect([folder])
    page = folder / 'leaderboard.html'
    page.write_text(to_html(foreign(make_sections(runs)), plot_costs(runs)))
    return page


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    """One Chromium for all tests, because its start takes a second."""
    with Chromium(tmp_path_factory.mktemp('profile')) as chromium:
        yield chromium


def test_page_carries_its_pictures_and_fetches_nothing(tmp_path):
    for task in ('detection', 'segmentation'):
        draw(put(tmp_path, 'incub', 0.4, task, pictures=['vis_image/0.png']))
    put(tmp_path, 'e2e', 50.0, phases=[phase('train', 100, 50., curve=[(50, 40.), (100, 50.)])])
    page = page_of(tmp_path)
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    sizes = [Image.open(io.BytesIO(base64.b64decode(image))).size for image in images]
    assert sizes.count((20, 10)) == 2 and len(sizes) == 3
    assert 'maskrcnn_incub, seed 0: ground truth | prediction' in page
    assert 'http://' not in page and 'https://' not in page and 'url(' not in page and '@import' not in page
    assert page == page_of(tmp_path)


def test_policy_allows_the_one_style_and_the_one_script(suite):
    page = suite.read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    assert "default-src 'none'" in policy and 'unsafe' not in policy
    for tag in ('style', 'script'):
        (content, ) = re.findall(f'<{tag}>(.*?)</{tag}>', page, re.S)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    attributes = {name for _, own in Tags(page).tags for name in own}
    assert not [name for name in attributes if name == 'style' or name.startswith('on')]


def test_style_and_script_are_in_the_package():
    settings = (ROOT / 'pyproject.toml').read_text()
    files = [file.name for file in (ROOT / 'mmincubation/leaderboard').iterdir() if file.suffix in ('.css', '.js')]
    assert len(files) == 2 and all(f'"{name}"' in settings for name in files)


def test_what_is_said_once_stands_once(suite):
    shown = re.sub('&#x27;', "'", suite.read_text().replace('&quot;', '"'))
    assert [shown.count(text) for text in LEGEND] == [1] * len(LEGEND)
    assert shown.count('<li>incub, e2e, scratch: 150/150 keys</li>') + shown.count('<li>150/150 keys</li>') == 1


def test_foreign_rows_look_otherwise_and_bold_is_what_the_interval_supports(suite, tmp_path):
    page = suite.read_text()
    assert page.count('<tbody class="quoted"') == page.count('<tbody class="reported"') == 1
    assert '>paper_e2e *<' in page and '>theirs (reported)<' in page
    assert '<b>+30.5</b><span class="half"> ± 5.5</span>' in page and '<b>+21.6</b>' not in page  # one seed
    put(tmp_path, 'e2e', 50.0)
    assert '<b>' not in page_of(tmp_path)


@pytest.mark.parametrize('evil', [
    '<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', "' onclick='alert(1)", 'a\nb', '\x1b[2J',
    '</title></style></script>', '\ud800', '\u202eabc', '&lt;b&gt;'])
def test_names_are_text(tmp_path, evil):
    put(tmp_path, 'e2e', 50.0, run='r0', hardware=evil, phases=[phase(evil, 10, 10.), phase('b', 1, 20.)],
        details={evil: {evil: 1.}}, notes={'accuracy/top1': evil},
        experiment=dict(task='classification', model=evil, method=evil, data=evil, note=evil))
    put(tmp_path, 'incub', 50.0)
    page = page_of(tmp_path)
    tags = Tags(page)
    assert [tag for tag, _ in tags.tags if tag in ('script', 'style', 'title')] == ['title', 'style', 'script']
    assert all(own['src'].startswith('data:image/png;base64,') for tag, own in tags.tags if tag == 'img')
    assert not [name for _, own in tags.tags for name in own if name.startswith('on')]
    assert tags.cells.count(clean(evil)) == 2 and '\x1b' not in page and '\u202e' not in page
    assert any(own.get('data-model') == clean(evil) for _, own in tags.tags)


@pytest.mark.parametrize('cell, value', [
    ('71.3 ± 1.2', '71.3'), ('-1.5', '-1.5'), ('+5.2 ± 1.1', '5.2'), ('2,038,400', '2038400'),
    ('32.2 M blocks', '32200000'), ('512 blocks', '512'), ('10 s', '10'), ('about 1,490 A100 hours', '1490'),
    ('0.53x', '0.53'), ('baseline', '0'), ('-', ''), ('several machines', '')])
def test_numbers_are_sorted_by_their_value(cell, value):
    assert sort_value(cell) == value


def column(browser, table: int, index: int) -> list[str]:
    """The values of one column, from top to bottom."""
    return browser.run(f'{BODIES.format(table=table)}.map((body) => body.rows[0].cells[{index}].dataset.value)')


def click(browser, table: int, index: int) -> str:
    """Click a header and return the order that it announces."""
    head = f"document.querySelectorAll('table.board')[{table}].tHead.rows[0].cells[{index}]"
    return browser.run(f"{head}.querySelector('button').click(); {head}.getAttribute('aria-sort')")


@needs_chromium
def test_a_click_sorts_both_ways_and_details_follow(browser, suite):
    browser.open(suite)
    best = ['97.3', '92.3', '90.1', '88.4', '86.5', '82.4', '80', '66.8']
    assert click(browser, 0, 3) == 'descending' and column(browser, 0, 3) == best
    assert click(browser, 0, 3) == 'ascending' and column(browser, 0, 3) == best[::-1]
    assert click(browser, 0, 2) == 'ascending'
    names = ['e2e', 'grow_only', 'incub', 'incub_grow', 'meta_only', 'paper_e2e *', 'stack_only', 'theirs (reported)']
    assert column(browser, 0, 2) == names
    assert browser.run("document.querySelectorAll('[aria-sort]').length") == 1
    for order in ('descending', 'ascending'):  # what has no number is last in both orders, and keeps its order
        assert click(browser, 0, 6) == order
        assert column(browser, 0, 2)[-2:] == ['paper_e2e *', 'theirs (reported)']
        assert column(browser, 0, 6)[-2:] == ['', '']
    runs = browser.run(f"{BODIES.format(table=0)}.map((body) => [...body.querySelectorAll('.detail td')]"
                       ".map((cell) => cell.textContent).find((text) => text.startsWith('vit_demo_')))")
    assert runs == [f'vit_demo_{name}' for name in column(browser, 0, 2)[:6]] + [None, None]


@needs_chromium
def test_the_keyboard_sorts(browser, suite):
    browser.open(suite)
    browser.run("document.querySelectorAll('table.board thead button')[2].focus()")
    browser.press('Enter')
    assert column(browser, 0, 2)[0] == 'e2e'


def choose(browser, name: str, value: str) -> list:
    """Choose a filter and return the methods and tasks that are still shown, and the count."""
    return browser.run(f"""
        (() => {{
            const choice = document.querySelector('select[name={name}]');
            choice.value = {json.dumps(value)};
            choice.dispatchEvent(new Event('change', {{ bubbles: true }}));
            const seen = (query) => [...document.querySelectorAll(query)].filter((one) => one.getClientRects().length);
            return [seen('table.board > tbody').map((body) => body.dataset.method),
                    seen('section h2').map((head) => head.textContent), document.querySelector('output').textContent];
        }})()""")


@needs_chromium
def test_filters_hide_rows_and_empty_sections(browser, suite):
    browser.open(suite)
    assert choose(browser, 'method', 'scratch') == [['scratch'], ['Detection'], '1 of 12 rows']
    assert choose(browser, 'task', 'classification') == [[], [], '0 of 12 rows']
    methods, tasks, _ = choose(browser, 'method', 'all')
    assert len(methods) == 8 and tasks == ['Classification']
    assert choose(browser, 'model', 'ViT-B') == [['paper_e2e', 'theirs'], ['Classification'], '2 of 12 rows']
    assert choose(browser, 'data', 'digits')[2] == '0 of 12 rows'


def contrast(first: str, second: str) -> float:
    """The ratio of the luminances of two colours, as WCAG defines it."""
    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r'\d+', colour)[:3]]
        red, green, blue = (part / 12.92 if part <= .04045 else ((part + .055) / 1.055)**2.4 for part in parts)
        return .2126 * red + .7152 * green + .0722 * blue
    low, high = sorted(map(luminance, (first, second)))
    return (high + .05) / (low + .05)


@needs_chromium
def test_light_and_dark_are_legible(browser, suite):
    grounds = []
    for dark in (False, True):
        browser.open(suite, dark=dark)
        colour = "getComputedStyle(document.querySelector('{query}')).{name}".format
        ground = browser.run(colour(query='body', name='backgroundColor'))
        grounds.append(ground)
        for query in ('body', '.remark', '.notes', 'thead th', '.half', '.detail'):
            assert contrast(ground, browser.run(colour(query=query, name='color'))) > 4.5, query
        assert browser.run(colour(query='.plots img', name='backgroundColor')) == 'rgb(255, 255, 255)'
    assert contrast(*grounds) > 10


@needs_chromium
def test_a_phone_shows_the_metric_and_its_difference(browser, suite):
    browser.open(suite, width=390)
    edges = ("[...document.querySelectorAll('table.board')].flatMap((table) => [...table.rows].flatMap((row) => "
             "[2, 3, 4].map((i) => row.cells[i]))).filter(Boolean).map((cell) => cell.getBoundingClientRect())"
             ".map((box) => [box.left, box.right, box.width])")
    for unfold in ('', "document.querySelectorAll('details').forEach((one) => { one.open = true; });"):
        found = browser.run(unfold + edges)
        assert len(found) == 45 and all(left > 0 and right <= 390 and width > 60 for left, right, width in found)
        # Nothing is left over that would have to be scrolled to.
        assert browser.run("[...document.querySelectorAll('.scroll')].every((one) => one.scrollWidth <= 358)")
        assert browser.run('[window.innerWidth, document.documentElement.scrollWidth]') == [390, 390]
    beside = ("['.rest', '.context'].map((query) => document.querySelector(query))"
              ".map((one) => one.getClientRects().length ? one.textContent : '')")
    assert browser.run(beside) == [
        'n 3, images 90,000, cost 360 k blocks, to baseline 0.14x', 'vit_demo · digits']
    browser.open(suite)
    assert browser.run(beside) == ['', '']


@needs_chromium
def test_the_browser_has_nothing_to_complain_about(browser, suite):
    browser.open(suite)
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    loaded = browser.run("Promise.all([...document.images].map((one) => one.decode())).then((all) => all.length)")
    assert loaded == 7 and browser.complaints() == [] and browser.requests() == [suite.as_uri()]


@needs_chromium
def test_a_page_that_was_tampered_with_loads_and_runs_nothing(browser, suite, tmp_path):
    page = tmp_path / 'bad.html'
    page.write_text(suite.read_text().replace(
        '</h1>', '</h1><img src="https://localhost:1/x.png"><img src="data:," onerror="document.title = 1">'
        '<script>document.title = 2</script><p style="color: red" id="styled">', 1))
    browser.open(page)
    assert browser.run('document.title') == 'Leaderboard'
    assert browser.run("getComputedStyle(document.getElementById('styled')).color") != 'rgb(255, 0, 0)'
    refused = [event['params']['entry']['text'] for event in browser.complaints()
               if event['method'] == 'Log.entryAdded']
    assert len(refused) == 4 and all('Content Security Policy' in text for text in refused)


@needs_chromium
def test_without_script_the_page_shows_all_tables(browser, suite):
    browser.open(suite, script=False)
    seen = "[...document.querySelectorAll('{}')].filter((one) => one.getClientRects().length).length"
    assert browser.run(seen.format('table.board > tbody')) == 12
    assert browser.run(seen.format('.filters')) == browser.run(seen.format('thead button')) == 0
