"""Made-up results, as runs write them."""
from pathlib import Path

from PIL import Image

from mmincubation.result import write_result

TASK_METRICS = dict(
    classification=lambda value: {'accuracy/top1': value},
    detection=lambda value: {'coco/bbox_mAP': value, 'coco/segm_mAP': value - 0.05},
    segmentation=lambda value: {'mIoU': value, 'aAcc': value + 30},
    **{'knn': lambda value: {'knn/top1': value}, 'linear probe': lambda value: {'linear_probe/top1': value}})


def phase(name: str, images: int, value: float | None = None, blocks: int = 16, seconds: float = 10.0,
          curve: list | None = None) -> dict:
    """One phase; `curve` are pairs of images and top-1."""
    made = dict(name=name, epochs=1.0 if images else 0.0, images=images, block_forwards=images * blocks,
                seconds=seconds, metrics={} if value is None else {'accuracy/top1': value})
    if curve is not None:
        made['curve'] = [dict(images=at, block_forwards=at * blocks, seconds=seconds * at / max(images, 1),
                              metrics={'accuracy/top1': top}) for at, top in curve]
    return made


def put(folder: Path, method: str, value: float, task='classification', seed=0, **changes) -> Path:
    """Write one made-up result below `folder`."""
    model = dict(detection='maskrcnn', segmentation='upernet').get(task, 'vit_demo')
    phases = changes.pop('phases', [phase('train', 1000, value)])
    blocks = [p['block_forwards'] for p in phases] if task == 'classification' else [None]
    result = dict(
        schema=2, run=f'{model}_{method}', experiment=dict(task=task, model=model, method=method, data='digits'),
        config=f'configs/demo/{model}_{method}.py', config_sha256='a' * 64, git_commit='b' * 40, seed=seed,
        weights=None, outputs=[], metrics=TASK_METRICS[task](value), phases=phases,
        recipe={'optim_wrapper.optimizer.lr': '0.001', 'batch': '64'},
        data=dict(train='ImageFolder data/demo/train', train_size=100, val='ImageFolder data/demo/val', val_size=50,
                  train_content='1' * 12, val_content='2' * 12),
        images_seen=sum(p['images'] for p in phases), block_forwards=None if None in blocks else sum(blocks),
        device_seconds=sum(p['seconds'] for p in phases), peak_memory_mib=512.0, hardware='a CPU', devices=1,
        versions=dict(torch='2.0'), pictures=[], finished_at='2030-01-01T00:00:00+00:00')
    result.update(changes)
    number = len(list(folder.glob('*'))) if folder.is_dir() else 0
    path = folder / f'{number:03d}_{result["run"]}_{seed}' / 'result.json'
    write_result(path, result)
    return path


def draw(result_path: Path, name='vis_image/0.png') -> None:
    """Draw a picture that a result names."""
    picture = result_path.parent / name
    picture.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (20, 10), 'red').save(picture)
