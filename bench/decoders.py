"""Decoders of JPEG and ways to crop, inside a torch DataLoader, as ratios to Pillow with timm's create_transform.

python bench/decoders.py [--files 300] [--rounds 7] [--workers 0 1 2]

Photographs that installed packages ship, cropped at random and encoded anew at about 500 x 375 with quality 90-95, half
of them 4:2:0 and half 4:4:4. simplejpeg is measured where it is installed (`pip install --no-deps simplejpeg==1.9.0`);
the project does not need it.
"""
import argparse
import statistics
import sys
import tempfile
import time
import warnings
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from timm.data import create_transform as timms
from torch.utils.data import DataLoader, Dataset
from torchvision.io import decode_jpeg
from torchvision.transforms import v2

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmincubation.datasets.crops import create_transform as ours
from mmincubation.datasets.images import planes, read_rgb
from mmincubation.demo.sources import photos
from mmincubation.resumable.draws import seeded

CROP = dict(input_size=224, is_training=True, interpolation='bicubic', color_jitter=None, normalize=False)
FULL = dict(CROP, auto_augment='rand-m9-mstd0.5-inc1', color_jitter=0.4)

BACKENDS = ('cv2', 'pillow')  # mmcv's; turbojpeg needs a library that no wheel brings


def write_files(folder: Path, count: int) -> list[Path]:
    """`count` JPEG files."""
    files = []
    for i in range(count):
        draw = np.random.default_rng(i)
        photo = Image.fromarray(photos('train')[i % len(photos('train'))])
        width, height = (photo.width * draw.uniform(0.6, 1), photo.height * draw.uniform(0.6, 1))
        left, top = draw.uniform(0, photo.width - width), draw.uniform(0, photo.height - height)
        size = (500, int(draw.integers(333, 400))) if i % 4 else (int(draw.integers(333, 400)), 500)
        files.append(folder / f'{i:04}.jpg')
        photo.resize(size, Image.Resampling.BICUBIC, (left, top, left + width, top + height)).save(
            files[-1], quality=int(draw.integers(90, 96)), subsampling=2 if i % 2 else 0)
    return files


def pillow(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert('RGB')


def torchvision(path: Path) -> torch.Tensor:
    return decode_jpeg(torch.from_numpy(np.fromfile(path, np.uint8)))


def opencv(path: Path) -> torch.Tensor:
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    return torch.from_numpy(cv2.imdecode(np.fromfile(path, np.uint8), flags)).permute(2, 0, 1)


def simplejpeg(path: Path) -> torch.Tensor:
    from simplejpeg import decode_jpeg as decode
    return torch.from_numpy(decode(path.read_bytes(), 'RGB')).permute(2, 0, 1)


DECODERS = dict(pillow=pillow, torchvision=torchvision, opencv=opencv, **dict(simplejpeg=simplejpeg) if find_spec(
    'simplejpeg') else {}, read_rgb=read_rgb)


class Files(Dataset):
    """What a way of reading makes of each file, under draws that are the file's own."""

    def __init__(self, files: list[Path], read, transform=None, planes=None):
        self.files, self.read, self.transform, self.planes = files, read, transform, planes

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index: int):
        with seeded(index):
            image = self.read(self.files[index])
            image = image if self.transform is None else self.transform(image)
            return image if self.planes is None else self.planes(image)


def nothing(samples: list) -> int:
    """In the place of a collate function: decoded images differ in size and would have to be sent."""
    return len(samples)


def ways(files: list[Path]) -> dict[str, dict[str, Files]]:
    """kind of work -> name -> the data set that does it, Pillow's first."""
    found = {'decode': {name: Files(files, read) for name, read in DECODERS.items()}}
    found['decode for mmdet and mmseg'] = {f'mmcv, {backend}': Files(files, mmcv(backend)) for backend in BACKENDS}
    for work, settings in {'decode, crop, flip': CROP, 'the whole training pipeline': FULL}.items():
        found[work] = {'pillow, timm': Files(files, pillow, timms(**settings))}
        for name, read in DECODERS.items():
            if name not in ('pillow', 'read_rgb'):
                through_pil = v2.Compose([v2.ToPILImage(), timms(**settings)])
                found[work][f'{name}, timm'] = Files(files, read, through_pil)
        for name, read in DECODERS.items():
            if name != 'pillow':
                found[work][f'{name}, our crop'] = Files(files, read, ours(**settings), planes)
    return found


def rates(sets: dict[str, Files], workers: int, rounds: int) -> dict[str, list[float]]:
    """Files a second, in turn, so that what else the machine does meets all; the first round is not counted."""
    options = dict(batch_size=32, num_workers=workers, persistent_workers=workers > 0)
    loaders = {name: DataLoader(data, collate_fn=nothing if data.transform is None else None, **options)
               for name, data in sets.items()}
    found = {name: [] for name in sets}
    for turn in range(rounds + 1):
        for name, loader in loaders.items():
            began = time.perf_counter()
            for _ in loader:
                pass
            found[name] += [len(loader.dataset) / (time.perf_counter() - began)] if turn else []
    for loader in loaders.values():
        if workers:
            loader._iterator._shutdown_workers()
    return found


def mmcv(backend: str):
    """What LoadImageFromFile of mmdet and mmseg does with `imdecode_backend`, (H, W, 3) in BGR."""
    def read(path: Path) -> torch.Tensor:
        from mmcv import imfrombytes
        return torch.from_numpy(np.ascontiguousarray(imfrombytes(path.read_bytes(), backend=backend)))
    return read


def starts(data: Files, rounds: int) -> None:
    """Time from asking for an epoch to its first batch, with workers that live on and with new ones, in turn."""
    loaders = {keeps: DataLoader(data, 16, num_workers=2, persistent_workers=keeps) for keeps in (True, False)}
    seconds = {keeps: [] for keeps in loaders}
    for turn in range(rounds + 1):
        for keeps, loader in loaders.items():
            began = time.perf_counter()
            batches = iter(loader)
            next(batches)
            seconds[keeps] += [time.perf_counter() - began] if turn else []
            for _ in batches:
                pass
    old, new = (statistics.median(seconds[keeps]) for keeps in (True, False))
    ratios = [b / a for a, b in zip(*seconds.values(), strict=True)]
    print(f'epoch start to first batch of 16, 2 workers: new workers {1e3 * (new - old):.0f} ms more than those that '
          f'live on, {statistics.median(ratios):.1f} times as long ({min(ratios):.1f}-{max(ratios):.1f})')
    loaders[True]._iterator._shutdown_workers()


def shares(files: list[Path], rounds: int) -> None:
    """Where the time of a training sample goes, in this process."""
    crop, flip, augment, to_tensor = ours(**FULL).transforms
    seconds = {}

    def timed(name: str, call, *given):
        began = time.perf_counter()
        made = call(*given)
        seconds[name] = seconds.get(name, 0.) + time.perf_counter() - began
        return made

    def sample(index: int, path: Path):
        began = time.perf_counter()
        with seeded(0, 0, index):
            inside = time.perf_counter()
            image = timed('crop', crop, timed('read and decode', read_rgb, path))
            image = timed('PIL to tensor', to_tensor, timed('RandAugment', augment, timed('flip', flip, image)))
            views.append(image)
            batch.append(timed('planes', planes, image))
            inside = time.perf_counter() - inside
        seconds['seeding'] = seconds.get('seeding', 0.) + time.perf_counter() - began - inside

    for _ in range(rounds):
        batch, views = [], []
        for index, path in enumerate(files):
            sample(index, path)
        timed('collate', torch.stack, batch)
        timed('unplaned', torch.stack, views)
    unplaned = seconds.pop('unplaned')
    whole = sum(seconds.values())
    print('a sample: ' + ', '.join(f'{name} {share / whole:.1%}' for name, share in seconds.items())
          + f'; collate without planes would be {unplaned / whole:.1%}')


def pixels(image) -> np.ndarray:
    image = image if isinstance(image, torch.Tensor) else torch.from_numpy(np.array(image)).permute(2, 0, 1)
    return image.numpy().astype(int)


def apart(data: Files, reference: Files) -> str:
    """Largest and mean difference of pixels, of 255."""
    found = [np.abs(pixels(data[i]) - pixels(reference[i])) for i in range(len(data))]
    return f'{max(f.max() for f in found):3} {statistics.mean(f.mean() for f in found):.4f}'


def compare(sets: dict[str, Files], workers: list[int], rounds: int) -> None:
    reference, *_ = sets
    columns = {count: rates(sets, count, rounds) for count in workers}
    for name, data in sets.items():
        cells = []
        for count, found in columns.items():
            ratios = [a / b for a, b in zip(found[name], found[reference], strict=True)]
            cells.append(f'{count} workers {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})')
        print(f'  {name:24} {"  ".join(cells)}  differs by {apart(data, sets[reference])}', flush=True)
    print('  (1.00 are ' + ', '.join(f'{statistics.median(found[reference]):.0f}' for found in columns.values())
          + ' files a second)')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--files', type=int, default=300)
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--workers', type=int, nargs='+', default=[0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    warnings.simplefilter('ignore')
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(folder), args.files)
        size = statistics.mean(file.stat().st_size for file in files)
        print(f'{len(files)} files of {size / 1024:.0f} KiB; median of {args.rounds} rounds in turn (least-most); '
              f'torch {torch.__version__}, Pillow {Image.__version__}, {torch.backends.cpu.get_cpu_capability()}')
        for work, sets in ways(files).items():
            print(f'{work}:')
            compare(sets, args.workers, args.rounds)
        shares(files, args.rounds)
        starts(Files(files, read_rgb, ours(**FULL)), args.rounds)
