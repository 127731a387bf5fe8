"""What the text of a value on the command line means."""
import ast
import os
import re
from typing import Any

PAIRS = {'[': ']', '(': ')', '{': '}'}
QUOTES = ('"', "'")


def read_value(text: str) -> Any:
    """Return the value that is written as a Python literal, else as mmengine's options are.

    A literal is made of numbers, quoted text, lists, tuples and dicts (`{...}` or `dict(...)`); backslashes in it are
    themselves. Else these are read: `true` and `false` in any case, `inf`, `nan`, `007`, plain text with its spaces (at
    its beginning `~/` is the home), and `[a, b]`, `(a, b)` and `a,b`, a list, of such parts. A comma before a space is
    part of a plain text. Quotes around a whole list or tuple are left out.

    Raises:
        ValueError: a bracket or a quote is not closed, or a dict is no literal.
    """
    text = text.strip()
    if not text:
        return ''
    try:
        value = _literal(text)
    except (SyntaxError, ValueError, TypeError):
        return _plain(text)
    # As one text in quotes it comes from a program that passes on what a shell takes away.
    if text[0] in QUOTES and isinstance(value, str) and PAIRS.get(value[:1]) == value[-1:] != '}':
        return read_value(value)
    return value


def _literal(text: str) -> Any:
    # In brackets `1,2` is a tuple too, and a `#` is no comment but an error: then the text is plain.
    node = ast.parse('({})'.format(text.replace('\\', r'\\')), mode='eval').body
    value = _evaluate(node)
    return list(value) if isinstance(node, ast.Tuple) and node.col_offset == 0 else value


def _evaluate(node: ast.expr | None) -> Any:
    """`ast.literal_eval` without bytes, complex numbers, sets and `...`, but with `dict(...)`."""
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None):
            return node.value
        case ast.UnaryOp(op=ast.UAdd() | ast.USub() as sign, operand=ast.Constant(value=int() | float() as number)):
            return -number if isinstance(sign, ast.USub) else number
        case ast.List(elts=parts):
            return [_evaluate(part) for part in parts]
        case ast.Tuple(elts=parts):
            return tuple(_evaluate(part) for part in parts)
        case ast.Dict(keys=keys, values=values):
            return {_evaluate(key): _evaluate(value) for key, value in zip(keys, values, strict=True)}
        case ast.Call(func=ast.Name(id='dict'), args=[], keywords=pairs) if all(pair.arg for pair in pairs):
            return {pair.arg: _evaluate(pair.value) for pair in pairs}
    raise ValueError('no literal')


def _plain(text: str) -> Any:
    shape = text.removeprefix('dict')
    if shape[:1] in PAIRS or text[0] in QUOTES:
        _split(text)
        parts = _enclosed(shape)
        if parts is not None and (shape[0] == '{' or shape != text):
            raise ValueError('a dict or set that is no literal')
        if parts is not None:
            values = [read_value(part) for part in parts]
            return values if shape[0] == '[' else tuple(values)
    if ',' in text and not re.search(r',\s', text):
        return [read_value(part) for part in _split(text)]
    return _word(text)


def _enclosed(text: str) -> list[str] | None:
    """The parts of what one pair of brackets holds; None if the first bracket is not closed by the last character."""
    if PAIRS.get(text[0]) != text[-1]:
        return None
    try:
        return _split(text[1:-1])
    except ValueError:
        return None


def _split(text: str) -> list[str]:
    """Split at the commas outside of brackets and quotes; an empty last part is left out."""
    parts, closers, quote, before = [''], [], '', ','
    for char in text:
        if quote:
            quote = '' if char == quote else quote
        elif char in QUOTES and before in '[({,:=':  # elsewhere it is an apostrophe
            quote = char
        elif char in PAIRS:
            closers.append(PAIRS[char])
        elif char in PAIRS.values() and (not closers or closers.pop() != char):
            raise ValueError(f'{char} closes nothing')
        if char == ',' and not closers and not quote:
            parts.append('')
        else:
            parts[-1] += char
        before = char if char.strip() else before
        if len(closers) > 100:
            raise ValueError('brackets are too deep')
    if closers or quote:
        raise ValueError(f'{(closers or [quote])[-1]} is missing')
    return parts if parts[-1].strip() else parts[:-1]


def _word(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    path = os.path.expanduser(text) if text.startswith('~/') else text  # no shell does it behind a `=`
    return {'true': True, 'false': False}.get(text.lower(), path)
