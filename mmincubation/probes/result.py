"""The result of a probe: what was measured, on which features, and whose weights they are of."""
import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mmincubation import provenance
from mmincubation.checkpoints.hub import is_address
from mmincubation.datasets.classification import ClsDataset
from mmincubation.result import SCHEMA, Experiment, Phase, Result, ResultError, read_result
from mmincubation.vit import ARCHS, Arch

SHORT = {'vit_base': 'ViT-B', 'vit_large': 'ViT-L', 'vit_huge': 'ViT-H'}


@dataclass(frozen=True)
class Names:
    """Hold the names of a row, and the seed."""

    method: str
    model: str
    seed: int


def names_of(weights: str, sha256: str | None, arch: Arch) -> Names:
    """Return the names of a weight file: those of the run that wrote it, else of the file and its architecture.

    A run's result.json lies beside the file, or beside its folder, and lists the file by its hash; or the file is the
    run's last checkpoint.
    """
    path = Path(weights.partition('@')[0] if is_address(weights) else weights)
    for folder in () if is_address(weights) else path.parents[:2]:
        try:
            run = read_result(folder / 'result.json')
        except ResultError:
            continue
        wrote = sha256 in {output['sha256'] for output in run['outputs']}
        last = folder / 'last_checkpoint'
        if wrote or last.is_file() and folder == path.parent and Path(last.read_text().strip()).name == path.name:
            return Names(run['experiment']['method'], run['experiment']['model'], run['seed'])
    same = next((name for name, known in ARCHS.items()
                 if (known.embed_dim, known.depth) == (arch.embed_dim, arch.depth)), None)
    return Names(path.stem, SHORT.get(same, f'ViT, width {arch.embed_dim}, depth {arch.depth}'), 0)


def make_result(task: str, names: Names, vit, sets: tuple[ClsDataset, ClsDataset], recipe: dict, metrics: dict,
                seconds: float, note: str = '') -> Result:
    """Return the content of `result.json` of one probe of the features of `vit` (a FeatureViT).

    `sets` are the training and validation images. `recipe` has plain values. An image passes each block once.
    """
    train, val = sets
    images, blocks = len(train), len(train) * vit.arch.depth
    recipe = dict(sorted({key: json.dumps(value) for key, value in recipe.items()}.items()))
    experiment = Experiment(task=task, model=names.model, method=names.method)
    called = {name: f'mmincubation.{type(data).__name__} {data.root}'
              for name, data in zip(('train', 'val'), sets, strict=True)}
    return Result(
        schema=SCHEMA, run=f'{names.method}, {task}', experiment=experiment | ({'note': note} if note else {}),
        config='', config_sha256=hashlib.sha256(json.dumps(recipe).encode()).hexdigest(),
        git_commit=provenance.git_commit(), seed=names.seed, recipe=recipe,
        weights=provenance.loaded_weights(vit), outputs=[],
        data=dict(**called, train_size=images, val_size=len(val), train_content=provenance.content_digest(train),
                  val_content=provenance.content_digest(val)),
        metrics=metrics, phases=[Phase(name='probe', epochs=1., images=images, block_forwards=blocks, seconds=seconds,
                                       metrics=metrics, curve=[])],
        images_seen=images, block_forwards=blocks, device_seconds=seconds,
        peak_memory_mib=provenance.peak_memory_mib(), hardware=provenance.hardware(), devices=1,
        versions=provenance.versions(), pictures=[],
        finished_at=datetime.now(UTC).isoformat(timespec='seconds'))
