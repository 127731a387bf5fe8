"""The guide's program and commands, as they are printed there."""
import re
import shlex

import numpy as np
from PIL import Image

from tests.helpers.models import small_model
from tests.helpers.paths import ROOT
from tests.helpers.tools import tool

PAGE = (ROOT / 'docs/guides/predict.md').read_text()


def test_the_guide(tmp_path):
    config, checkpoint = small_model('classification', tmp_path)
    checkpoint.rename(tmp_path / 'iter_160.pth')
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / 'photo.jpg')
    program = re.sub(r"'(\w+\.(py|pth|jpg))'", rf"'{tmp_path}/\1'", re.search(r'```python\n(.*?)```', PAGE, re.S)[1])
    exec(program, names := {})
    assert names['result']['name'] in names['model'].names == ('0', '1', '2')
    places = dict(CONFIG=config, CHECKPOINT=tmp_path / 'iter_160.pth', IMAGE_OR_FOLDER=tmp_path / 'photo.jpg',
                  DIR=tmp_path / 'out', OUT=tmp_path / 'published')
    assert 'python tools/export.py CONFIG CHECKPOINT OUT.onnx --size H W' in PAGE  # test_export.py runs it
    commands = re.findall(r'^python tools/((?:predict|publish).*)$', PAGE.replace(' [--device cuda]', ''), re.M)
    assert len(commands) == 2
    for command in commands:
        words = [str(places.get(word, word)) for word in shlex.split(re.sub(r'[][]', '', command))]
        assert (done := tool(*words)).returncode == 0, done.stderr
    assert (tmp_path / 'out/predictions.json').is_file() and (tmp_path / 'published/model.safetensors').is_file()
