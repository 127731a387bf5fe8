"""Packages that a config needs and that are not installed, with the command that installs them."""
import re
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

# What is imported -> what pip installs. A name that is not here may be a slip of the pen, so pip is not advised.
PIP = {name: name for name in (
    'aim', 'albumentations', 'bitsandbytes', 'cityscapesscripts', 'clearml', 'dadaptation', 'datasets', 'deepspeed',
    'dvclive', 'fairscale', 'imagecorruptions', 'instaboostfast', 'kornia', 'mlflow', 'mmdet', 'mmpose', 'mmpretrain',
    'mmrotate', 'mmyolo', 'neptune', 'nltk', 'onnx', 'pycocotools', 'scipy', 'tensorboard', 'transformers', 'wandb',
)} | {
    'PIL': 'pillow', 'cv2': 'opencv-python', 'lion_pytorch': 'lion-pytorch', 'mmseg': 'mmsegmentation',
    'lvis': 'git+https://github.com/lvis-dataset/lvis-api.git', 'open_clip': 'open-clip-torch', 'osgeo': 'gdal',
    'panopticapi': 'git+https://github.com/cocodataset/panopticapi.git', 'skimage': 'scikit-image',
    'sklearn': 'scikit-learn', 'yaml': 'pyyaml',
}
# Types that import a package when they are built, or are registered only if it is there.
NEEDS = {
    'AimVisBackend': 'aim', 'Adafactor': 'transformers', 'Albu': 'albumentations', 'BertModel': 'transformers',
    'CityScapesMetric': 'cityscapesscripts', 'CityscapesMetric': 'cityscapesscripts', 'ClearMLVisBackend': 'clearml',
    'CocoPanopticMetric': 'panopticapi', 'Corrupt': 'imagecorruptions', 'DVCLiveVisBackend': 'dvclive',
    'DAdaptAdaGrad': 'dadaptation', 'DAdaptAdam': 'dadaptation', 'DAdaptSGD': 'dadaptation',
    'InstaBoost': 'instaboostfast', 'LVISMetric': 'lvis', 'LVISV05Dataset': 'lvis', 'LVISV1Dataset': 'lvis',
    'Lion': 'lion_pytorch', 'MLflowVisBackend': 'mlflow', 'NeptuneVisBackend': 'neptune',
    'TensorboardVisBackend': 'tensorboard', 'WandbVisBackend': 'wandb',
}


def needed(name: str) -> str | None:
    """The package that a type needs and that is not installed, if this is known of the type."""
    package = NEEDS.get(name.rpartition('.')[2])
    return package if package and find_spec(package) is None else None


def missing_package(name: str, package: str) -> str:
    """That `name` needs a package which is not there, with pip's name for it or, if there is none, the nearest name."""
    return f'{name!r} needs the package {package!r}, which is not installed{remedy(package)}'


def remedy(package: str) -> str:
    """The end of a sentence that says that a package is not installed."""
    if Path(package).is_dir() or Path(f'{package}.py').is_file():
        return ': it lies in this folder, which Python does not search; begin the command with PYTHONPATH=.'
    if package in PIP:
        return f': `pip install {PIP[package]}`'
    near = get_close_matches(package, sorted({*PIP, 'mmengine', 'mmincubation'}), 1, 0.75)
    return f' (nearest: {near[0]!r})' if near else ''


def with_remedy(message: str) -> str:
    """A message of Python, with what installs the module that it does not find."""
    missing = re.search(r"No module named '(\w+)", message)
    return message + remedy(missing[1]) if missing and find_spec(missing[1]) is None else message
