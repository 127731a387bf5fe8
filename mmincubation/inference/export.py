"""Write a classifier or a segmentor as an ONNX graph of a fixed image size, compared with onnxruntime."""
import os
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

from mmincubation.errors import ConfigError, naming
from mmincubation.models.classifier import BaseClassifier

from .predictor import Predictor

PACKAGES = ('onnx', 'onnxscript', 'onnxruntime')
CLOSE = 1e-4  # of the largest logit: how far onnxruntime may be from torch
LARGEST = 2**31 - 2**24  # bytes of weights in one file: what protobuf takes, less the graph


class Logits(nn.Module):
    """Logits of images (1, 3, H, W) of 0 to 255, float32 in RGB order, all in float32.

    A classifier's are (1, classes), a segmentor's (1, classes, H, W), of one window without sliding.

    Raises:
        ConfigError: the model is neither, or takes no images of this size.
    """

    def __init__(self, model: nn.Module, size: tuple[int, int]):
        super().__init__()
        self.model, self.size, self.classifies = model, size, isinstance(model, BaseClassifier)
        if not self.classifies and not hasattr(model, 'encode_decode'):
            raise ConfigError(f'a {type(model).__name__} is not exported; classifiers and segmentors are')
        prepare = model.data_preprocessor
        divisor = (getattr(prepare, 'test_cfg', None) or {}).get('size_divisor') or 1
        if size[0] % divisor or size[1] % divisor:
            raise ConfigError(f'--size {size[0]} {size[1]}: give multiples of {divisor}, to which images are padded')
        self.turned = not self.classifies and not prepare.channel_conversion  # the network takes BGR
        self.normalised = self.classifies or prepare._enable_normalize
        for module in model.modules():
            if hasattr(module, 'bf16'):
                module.bf16 = False

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits."""
        image = image.flip(1) if self.turned else image
        if self.normalised:
            image = (image - self.model.data_preprocessor.mean) / self.model.data_preprocessor.std
        if self.classifies:
            return self.model.logits(image)
        return self.model.encode_decode(image, [dict(img_shape=self.size, ori_shape=self.size)])


def export(predictor: Predictor, out: Path, size: tuple[int, int]) -> float:
    """Write `out`, with input `image` and output `logits` as `Logits` has them; return the difference of the check.

    The check is a random image, by onnxruntime and by torch: the largest difference over the largest logit. Weights of
    2 GiB and more go to `out` and `.data`. The predictor computes in float32 from now on.

    Raises:
        ConfigError: a package is missing, `out` exists, the model cannot be exported, or the difference is too large.
    """
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise ConfigError(f'an export needs {", ".join(missing)}: python -m pip install {" ".join(PACKAGES)}')
    if out.exists():
        raise ConfigError(f'{out} is there already; give a new file')
    model = Logits(predictor.model, size).eval()
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) * 255
    with naming(f'--size {size[0]} {size[1]}'), torch.no_grad():
        logits = model(image).numpy()
        program = torch.onnx.export(model, (image,), dynamo=True, input_names=['image'], output_names=['logits'],
                                    verbose=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix='.onnx') as folder:
        partial = Path(folder, out.name)
        program.save(partial, external_data=sum(t.nbytes for t in model.state_dict().values()) > LARGEST)
        difference = float(np.abs(_run(partial, image.numpy()) - logits).max() / np.abs(logits).max())
        if not difference <= CLOSE:
            raise ConfigError(f'{out}: onnxruntime and torch differ by {difference:.1e} of the largest logit, more '
                              f'than {CLOSE:.0e}; nothing was written')
        for file in sorted(Path(folder).iterdir()):
            os.replace(file, out.parent / file.name)
    return difference


def _run(path: Path, image: np.ndarray) -> np.ndarray:
    from onnxruntime import InferenceSession
    return InferenceSession(str(path), providers=['CPUExecutionProvider']).run(None, {'image': image})[0]
