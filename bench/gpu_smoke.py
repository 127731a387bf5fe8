"""Train, resume, test and predict with the public tools: python bench/gpu_smoke.py OUT.jsonl [--tasks cls ...] [--dry].

The three tasks run at the same time, on generated data: ViT-B incubation, Mask R-CNN and UperNet of their real sizes,
a few steps in bfloat16, and one more incubation compiled. The resumed run is the same run whose newest checkpoint was
taken away; `difference` is the largest relative difference of its final weights. `--dry` has small models on the CPU.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

TASKS = {'cls': 'imagenet/vit_b_incub.py', 'cls_compiled': 'imagenet/vit_b_incub.py',
         'det': 'coco/maskrcnn_vit_b_incub.py', 'seg': 'ade20k/upernet_vit_b_incub.py'}
SHORT = dict(
    cls={f'train_cfg.phases.{phase}.epochs': 1 for phase in ('meta', 'module', 'finetune')} | {
        'train_dataloader.batch_size': 64, 'val_dataloader.batch_size': 8},
    det={'train_cfg.max_epochs': 3},
    seg={'train_cfg.max_iters': 6, 'train_cfg.val_interval': 3, 'default_hooks.checkpoint.interval': 2})


def write_config(task: str, folder: Path, data: Path, dry: bool) -> Path:
    """Write the config of a short run, and return its path."""
    from mmincubation.config.load import load_config
    from tests.helpers.shrink import shrink
    kind = task.split('_')[0]
    cfg = load_config(ROOT / 'configs' / TASKS[task])
    (cfg.model.get('backbone') or {}).pop('init_cfg', None)
    if dry:
        cfg = shrink(cfg, data)
    cfg.merge_from_dict(SHORT[kind] | {
        'default_hooks.checkpoint.max_keep_ckpts': -1, 'default_hooks.logger.interval': 1,
        'work_dir': str(folder / 'run'), 'train_dataloader.num_workers': 2, 'val_dataloader.num_workers': 2})
    if kind == 'cls':
        cfg.train_dataloader.dataset.root, cfg.val_dataloader.dataset.root = (
            str(data / f'imagenet/{name}') for name in ('1.0', 'val'))
        cfg.model.arch = dict(cfg.model.arch, num_classes=4)
        cfg.model.data_preprocessor.mixup.num_classes = 4
        cfg.val_evaluator.topk = (1, )
        cfg.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=True)
        cfg.train_cfg.phases.finetune.pop('param_scheduler', None)
    cfg.param_scheduler = [dict(type='ConstantLR', factor=1.0, by_epoch=False)]  # a warm-up would outlast the run
    for name in ('train', 'val'):
        dataset = cfg[f'{name}_dataloader'].dataset
        if 'data_root' in dataset and not dry:
            dataset.data_root = dataset.data_root.replace('data/', f'{data}/', 1)
        cfg[f'{name}_dataloader'].persistent_workers = True
    if 'ann_file' in cfg.val_evaluator and not dry:
        cfg.val_evaluator.ann_file = cfg.val_evaluator.ann_file.replace('data/', f'{data}/', 1)
    cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.val_evaluator
    if task.endswith('compiled'):
        cfg.compile = dict(backend='aot_eager') if dry else True
    path = folder / f'{task}.py'
    cfg.dump(path)
    return path


def run_task(task: str, data: Path, dry: bool, work: Path, write) -> None:
    """Run the acts of one task and write a row for each at once; stop at the first that fails."""
    folder = work / task
    folder.mkdir(parents=True)
    config, run, again = write_config(task, folder, data, dry), folder / 'run', folder / 'again'
    kind = task.split('_')[0]

    def act(name: str, *command) -> bool:
        start = time.monotonic()
        env = dict(os.environ, OMP_NUM_THREADS=os.environ.get('OMP_NUM_THREADS', '4'))
        done = subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True, env=env)
        row = dict(task=task, act=name, rc=done.returncode, seconds=round(time.monotonic() - start, 1))
        write(**row, **dict(said=done.stdout[-1500:] + done.stderr[-4000:]) if done.returncode else {})
        return not done.returncode

    if not act('train', 'tools/train.py', config) or task == 'cls_compiled':
        return
    last = run / Path((run / 'last_checkpoint').read_text()).name
    write(task=task, act='result', result=json.loads((run / 'result.json').read_text())['phases'])
    shutil.copytree(run, again, copy_function=os.link)
    for file in [*again.glob(f'{last.stem}*'), again / 'result.json', again / 'last_checkpoint']:
        file.unlink()
    images = dict(cls='imagenet/val', det='coco/val2017', seg='ade/ADEChallengeData2016/images/validation')[kind]
    acts = [('resume', 'tools/train.py', config, '--work-dir', again, '--resume'),
            ('test', 'tools/test.py', config, last),
            ('predict', 'tools/predict.py', config, last, data / images, '--out', folder / 'predicted', '--device',
             'cpu' if dry else 'cuda')]
    if all([act(*one) for one in acts]):
        write(task=task, act='compare', rc=0, difference=difference(last, again / last.name))


def difference(a: Path, b: Path) -> float:
    """Return the largest difference of two checkpoints' weights, relative to the largest weight of each tensor."""
    import torch

    from mmincubation.compat.safe_globals import allow_mm_checkpoints
    allow_mm_checkpoints()
    ours, theirs = (torch.load(path, weights_only=True, map_location='cpu')['state_dict'] for path in (a, b))
    return max(float((ours[key].float() - theirs[key].float()).abs().max() / (1e-8 + ours[key].float().abs().max()))
               for key in ours)


def main() -> None:
    """Run all tasks at once and write their rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out', type=Path)
    parser.add_argument('--tasks', nargs='+', default=[*TASKS], choices=TASKS)
    parser.add_argument('--dry', action='store_true')
    args = parser.parse_args()
    from tests.helpers.shrink import write_data
    with tempfile.TemporaryDirectory() as folder, open(args.out, 'a') as file:
        data = write_data(Path(folder) / 'data')
        def write(**row) -> None:
            file.write(json.dumps(row) + '\n')
            file.flush()
            print(row['task'], row['act'], row.get('rc', ''), row.get('seconds', row.get('difference', '')),
                  row.get('said', '')[-1500:], flush=True)

        with ThreadPoolExecutor(1 if args.dry else len(args.tasks)) as pool:
            for job in [pool.submit(run_task, task, data, args.dry, Path(folder), write) for task in args.tasks]:
                job.result()


if __name__ == '__main__':
    main()
