"""Is there a depth gap? Three runs side by side on small photographs: python bench/gpu_depth.py DATA OUT.jsonl [--dry].

DATA holds `train` and `val` as Arrow folders of 32 x 32 images (columns `image` and `label`). A ViT of 24 blocks, width
192, is trained end to end and by incubation with the start `grow`; the meta model of 4 blocks is trained alone. All
cost the same block-forwards an image. The rows are copied while they run, so a run that is cut off leaves its curve.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

WIDTH, DEPTH, MODULES = 192, 24, 4
METHODS = ('e2e', 'incub_grow', 'meta_only')


def write_config(method: str, folder: Path, data: Path, scale: int, dry: bool) -> Path:
    """Write a method's config: 60 x `scale` epochs of end-to-end training, or what costs as much."""
    from mmincubation.config.load import load_config
    cfg = load_config(ROOT / f'configs/cifar100/deit_t_32_{method}.py')
    classes = json.loads((data / 'train/dataset_info.json').read_text())['features']['label']['names']
    depth = MODULES if method == 'meta_only' else DEPTH
    cfg.model.arch = dict(cfg.model.arch, depth=depth, num_classes=len(classes))
    cfg.model.data_preprocessor.mixup.num_classes = len(classes)
    if dry:
        cfg.model.arch.update(embed_dim=24, depth=MODULES if method == 'meta_only' else 2 * MODULES)
        cfg.train_dataloader.batch_size = 32
    epochs = dict(e2e=60, meta_only=360).get(method)
    if epochs:
        cfg.train_cfg.max_epochs, cfg.train_cfg.val_interval = epochs * scale, epochs * scale // 12
    else:  # 60 x 4 + 4 x 10 x 9 + 35 x 24 = 60 x 24
        for phase, number in dict(meta=60, module=10, finetune=35).items():
            cfg.train_cfg.phases[phase].epochs = number * scale
        cfg.train_cfg.val_interval = 5 * scale
    for name in ('train', 'val'):
        loader = cfg[f'{name}_dataloader']
        loader.num_workers = 2 if dry else dict(e2e=3, incub_grow=4, meta_only=7)[method]
        loader.dataset.update(root=str(data / name), image='image', label='label')
    cfg.test_dataloader = cfg.val_dataloader
    cfg.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=True)
    # Mixup, cutmix and erasing run on the GPU; RandAugment would make the CPUs the limit.
    cfg.train_dataloader.dataset.pipeline = cfg.train_dataloader.dataset.pipeline[:2]
    cfg.param_scheduler[0].end = cfg.param_scheduler[1].begin = 3 * scale
    cfg.experiment = dict(task='classification', model='ViT-192-24', method=method, data=f'photographs, {len(classes)}')
    if dry:
        cfg.train_dataloader.dataset.fraction = 0.02
        shorten(cfg)
    cfg.default_hooks.checkpoint.interval = 1000
    cfg.work_dir = str(folder / method)
    path = folder / f'{method}.py'
    cfg.dump(path)
    return path


def shorten(cfg) -> None:
    """Leave one or two epochs."""
    for phase in cfg.train_cfg.get('phases', {}).values():
        phase.epochs = 1
    cfg.train_cfg.update({key: 1 for key in ('max_epochs', 'val_interval') if key in cfg.train_cfg})
    cfg.param_scheduler = cfg.param_scheduler[1:]
    cfg.param_scheduler[0].begin = 0


def curves(folder: Path) -> dict[str, list[dict]]:
    """Return the validations (method -> rows) of what has run so far."""
    found = {}
    for method in METHODS:
        lines = [json.loads(line) for file in sorted((folder / method).glob('*/vis_data/scalars.json'))
                 for line in file.read_text().splitlines() if line.endswith('}')]
        found[method] = [line for line in lines if 'accuracy/top1' in line] + lines[-1:]
    return found


def main() -> None:
    """Run the three methods at once; rewrite OUT every ten seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('data', type=Path)
    parser.add_argument('out', type=Path)
    parser.add_argument('--scale', type=int, default=1)
    parser.add_argument('--dry', action='store_true')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, start = Path(name), time.monotonic()
        runs = {}
        for method in METHODS:
            path = write_config(method, folder, args.data.resolve(), args.scale, args.dry)
            log = open(args.out.with_name(f'{args.out.stem}_{method}.log'), 'w')
            runs[method] = subprocess.Popen(
                [sys.executable, 'tools/train.py', str(path)], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT,
                env=dict(os.environ, OMP_NUM_THREADS='1'))
        while True:
            waiting = any(run.poll() is None for run in runs.values())
            results = {m: json.loads(p.read_text()) for m in METHODS if (p := folder / m / 'result.json').is_file()}
            args.out.write_text(json.dumps(dict(
                seconds=time.monotonic() - start, rc={m: r.poll() for m, r in runs.items()}, curves=curves(folder),
                results=results), default=str))
            if not waiting:
                break
            time.sleep(10)
    print({method: result['metrics'] for method, result in results.items()})


if __name__ == '__main__':
    main()
