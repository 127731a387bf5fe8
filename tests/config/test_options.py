"""`--cfg-options`: what was typed is what the config has, or one line says why not."""
import math
import runpy

import pytest
from mmengine.config import DictAction

from mmincubation.config.load import load_config, parse_options
from mmincubation.config.values import read_value
from mmincubation.errors import ConfigError
from tests.helpers.paths import ROOT

# mmengine's forms keep their meaning.
AS_MMENGINE = ['1', '-5', '+5', '1e-3', '.5', '1E-3', '1_000', '007', 'inf', '-inf', 'true', 'False', 'TRUE', 'None',
               'none', '', 'abc', 'a.b', 'a-b', 'a=b', 'a,b', 'a,b,', '1,2,3', '1,', '[1,2]', '(1,2)', '[a,b]', '[]',
               '()', '[(1,2,3),[a,b],c]', "['a','b']", '"[\'a\',\'b\']"', '"(1,2)"', "'abc'", '[None,true,1]',
               '[-inf,1]', 'epoch_{}.pth', '/x/a,b/', 'hf://a/b@c', '1+2', '1j', '...', '#ff0000', 'dict', 'print',
               '(cat)']


@pytest.mark.parametrize('text', AS_MMENGINE)
def test_forms_of_mmengine(text):
    value, want = read_value(text), DictAction._parse_iterable(text)
    assert value == want and type(value) is type(want)


@pytest.mark.parametrize('text, value', [
    # spaces
    ('traffic light', 'traffic light'), ('  a  b ', 'a  b'), ('1 2', '1 2'), ('first try, with new data',) * 2,
    ('[traffic light, stop sign]', ['traffic light', 'stop sign']), ('traffic light,bus', ['traffic light', 'bus']),
    ('("a b",)', ('a b',)), ("'a b',c", ['a b', 'c']), ('1, 2.5', [1, 2.5]), ('/my data/', '/my data/'),
    # quotes, backslashes and brackets inside
    ("'5'", '5'), ("''", ''), ("it's", "it's"), ("[it's, he's]", ["it's", "he's"]), ('"it\'s"', "it's"),
    ("'a','b'", ['a', 'b']), ("['a,b', c]", ['a,b', 'c']), ("['a]b', c]", ['a]b', 'c']), ("'a' and b", "'a' and b"),
    (r'C:\data\new', r'C:\data\new'), (r"'C:\data\new'", r'C:\data\new'), (r'[C:\a, D:\b c]', [r'C:\a', r'D:\b c']),
    ('[draft] note', '[draft] note'), ('(old) run', '(old) run'), ('run (2', 'run (2'), ('f(a, b)', 'f(a, b)'),
    ('a # b', 'a # b'), ('{}_best.pth', '{}_best.pth'), ('lambda: 0', 'lambda: 0'),
    # Python
    ('0x10', 16), ('(1,2),(3,4)', [(1, 2), (3, 4)]), ('(3)', 3), ("{'max_norm': 0.1}", dict(max_norm=.1)), ('{}', {}),
    ("dict(type='C', f=-1.)", dict(type='C', f=-1.)), ("[dict(a=[1, (2,)]), x]", [dict(a=[1, (2,)]), 'x']),
    ('({"a": None},)', (dict(a=None),)),
])
def test_literals_and_plain_text(text, value):
    assert read_value(text) == value and type(read_value(text)) is type(value)
    assert math.isnan(read_value('nan'))


@pytest.mark.parametrize('word', ['a=[1,2', 'a=(1,2))', 'a=[{1: 2},(3,)]]', "a='b", 'a={max_norm:0.1}', 'a=dict(b=c)',
                                  'a={1,2}', 'a=b,(c', 'a=' + '[' * 99999])
def test_values_that_cannot_be_read_are_one_line(word):
    with pytest.raises(ConfigError, match='the value cannot be read; write it as in Python') as error:
        parse_options(['b=1', word])
    assert f'--cfg-options {word}: ' in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('word', ['a', '=1', 'a..b=1', '.a=1'])
def test_words_that_are_no_options_are_one_line(word):
    with pytest.raises(ConfigError, match='write it as key=value, all of it in quotes if it has spaces'):
        parse_options([word])


def test_options_are_read_one_by_one():
    assert parse_options(['a=1', 'b=x,y', 'c.d=[1,(2,3)]', 'a=k=v', 'e=']) == {
        'a': 'k=v', 'b': ['x', 'y'], 'c.d': [1, (2, 3)], 'e': ''}
    assert parse_options(None) == {}


CONFIG = '''
model = dict(type='M', mean=[1., 2.], size=(3, 4), clip=None, arch='vit_base', levels=[dict(x=1), 2])
custom_hooks = [dict(type='H', names=['a'])]
'''


@pytest.fixture
def config(tmp_path):
    (tmp_path / 'c.py').write_text(CONFIG)
    return tmp_path / 'c.py'


@pytest.mark.parametrize('word, place, value', [
    ('model.mean=[5]', 'mean', [5]), ('model.levels.0.x=3', 'levels', [dict(x=3), 2]),
    ('model.levels.0={"y": 1}', 'levels', [dict(x=1, y=1), 2]), ('model.clip=dict(norm=1)', 'clip', dict(norm=1)),
    ('model.arch=dict(depth=4)', 'arch', dict(depth=4)), ('model.arch=a, b', 'arch', 'a, b'),
    ('model.new.key=1', 'new', dict(key=1))])
def test_options_change_the_config(config, word, place, value):
    assert load_config(config, parse_options([word])).model[place] == value


@pytest.mark.parametrize('word, reason', [
    ('model.mean.0=5', 'model.mean has 2 items, and options change dicts of a list alone'),
    ('model.size.0=5', 'model.size has 2 items, and options change dicts'),
    ('model.levels.2.x=5', 'model.levels has 2 items, and options change dicts'),
    ('model.levels.0=5', 'model.levels has 2 items, and options change dicts'),
    ('custom_hooks.type=X', 'custom_hooks has 1 items, and options change dicts'),
    ('model.clip.max_norm=1', 'model.clip is None, which has no keys; give all of model.clip'),
    ('model.arch.depth=1', "model.arch is 'vit_base', which has no keys; give all of model.arch")])
def test_options_that_reach_nowhere_are_one_line(config, word, reason):
    with pytest.raises(ConfigError) as error:
        load_config(config, parse_options(['log_level=INFO', word]))
    assert str(error.value).startswith(f'--cfg-options {word.partition("=")[0]}: {reason}')
    assert '\n' not in str(error.value)


def test_a_sentence_for_a_list_is_refused(config):
    with pytest.raises(ConfigError, match=r'custom_hooks.0.names=cat, dog: the config has a list there; write it in'):
        load_config(config, parse_options(['custom_hooks.0.names=cat, dog']))


@pytest.mark.parametrize('name', ['train', 'test', 'check'])
def test_options_given_in_two_places_all_count(name, monkeypatch):
    given = ['c.py', *['w.pth'] * (name == 'test'), '--cfg-options', 'a=1', 'b=2', '--cfg-options', 'c=3']
    monkeypatch.setattr('sys.argv', [name, *given])
    args = runpy.run_path(ROOT / f'tools/{name}.py')['parse_args']()
    assert args.cfg_options == ['a=1', 'b=2', 'c=3']


def test_a_dict_where_the_config_has_none_is_that_dict(tmp_path):
    (tmp_path / 'a.py').write_text("model = dict(type='x')\nload = None\n")
    cfg = load_config(tmp_path / 'a.py', parse_options(["model.init_cfg=dict(type='Pretrained')", 'env_cfg={"a": 1}']))
    assert cfg.model.init_cfg == dict(type='Pretrained') and cfg.env_cfg == dict(a=1)
