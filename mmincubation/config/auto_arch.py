"""Put the architecture of its file in the place of each `arch='auto'` of a config."""
from pathlib import Path

from mmengine.config import Config

from mmincubation.checkpoints import asks_file, settle_arch
from mmincubation.registry import dicts_in, kind_of

FROM_A_FILE = ('ViTBackbone', 'ViTClassifier')
SHOWN = ('embed_dim', 'depth', 'num_heads', 'patch_size', 'img_size', 'num_classes')


def asking(cfg: Config) -> list[tuple[str, dict]]:
    """Return (place, settings) of the models of a config that begin from a file and have its architecture."""
    return [(place, node) for place, node in dicts_in(cfg.get('model'), 'model')
            if asks_file(node.get('arch')) and kind_of(node) in FROM_A_FILE]


def settle_archs(cfg: Config, trained: str | Path | None = None) -> list[str]:
    """Replace each `arch='auto'` in place, so that a run stores and compares what it became; return one line for each.

    `trained` is the checkpoint that a run resumes from, or that is tested: it says the architecture, and the file that
    the training began from need not be there. Without it that is the file of `init_cfg`, or else of `load_from`.

    Raises:
        CheckpointError: there is no file, or it does not say all.
    """
    said = []
    for place, node in asking(cfg):
        init = node.get('init_cfg') if isinstance(node.get('init_cfg'), dict) else {}
        begun, prefix = init.get('checkpoint'), init.get('prefix')
        path = trained or begun or cfg.get('load_from')
        backbone = not str(node['type']).endswith('ViTClassifier')
        for key, value in settle_arch(node, path, place, prefix if path == begun else None, backbone).items():
            node[key] = value  # `update` of mmengine's dicts would merge the old arch with the new one
        fields = [f'{key}={node["arch"][key]}' for key in SHOWN if key in node['arch']]
        token = f', cls_token={node["cls_token"]}' if backbone else ''
        said.append(f"{place}.arch='auto': {', '.join(fields)}{token}, from {path}")
    return said
