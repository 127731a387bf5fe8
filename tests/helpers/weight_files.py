"""Small files with the keys that other programs write, spelled here without the package's own tables."""
import argparse
import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from mmincubation.checkpoints import write_tensors
from mmincubation.models import Arch, VisionTransformer

ARCH = Arch(embed_dim=16, depth=4, num_heads=2, patch_size=4, img_size=16, num_classes=5)
DIVISION = [1, 3]


def random_vit(arch: Arch = ARCH, seed: int = 0) -> VisionTransformer:
    """Every value is different, so that no two tensors can be exchanged unseen."""
    torch.manual_seed(seed)
    vit = VisionTransformer(arch)
    for parameter in vit.parameters():
        nn.init.normal_(parameter, std=.3)
    return vit.eval()


def equal(a: dict, b: dict) -> bool:
    """The same names, types and bits."""
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


def headless(state: dict) -> dict:
    return {key: value for key, value in state.items() if not key.startswith('head.')}


def _replaced(key: str, pairs) -> str:
    for old, new in pairs:
        key = re.sub(old, new, key)
    return key


def mmpretrain_names(state: dict, head: str = 'head.layers.head') -> dict:
    """An ImageClassifier of VisionTransformer and VisionTransformerClsHead (or LinearClsHead, `head.fc`)."""
    pairs = [(r'^head', f'{head}'), (r'^(?!head)', 'backbone.'), (r'backbone\.norm', 'backbone.ln1'),
             (r'\.blocks\.', '.layers.'), (r'\.norm(\d)', r'.ln\1'), (r'\.mlp\.fc1', '.ffn.layers.0.0'),
             (r'\.mlp\.fc2', '.ffn.layers.1'), (r'embed\.proj', 'embed.projection'),
             (r'\.ls1\.gamma', '.attn.gamma1.weight'), (r'\.ls2\.gamma', '.ffn.gamma2.weight')]
    return {_replaced(key, pairs): value for key, value in state.items()}


def hf_names(state: dict, root: str = 'vit') -> dict:
    """ViTForImageClassification."""
    return _transformers_names(state, root, [
        (r'norm1', 'layernorm_before'), (r'norm2', 'layernorm_after'), (r'attn\.proj', 'attention.output.dense'),
        (r'mlp\.fc1', 'intermediate.dense'), (r'mlp\.fc2', 'output.dense')])


def dinov2_hf_names(state: dict) -> dict:
    """Dinov2Model within a larger model; its head is another one."""
    return _transformers_names(state, 'dinov2', [
        (r'attn\.proj', 'attention.output.dense'), (r'ls(\d)\.gamma', r'layer_scale\1.lambda1'),
        (r'^(mask_token|register_tokens)', r'dinov2.embeddings.\1')])


def _transformers_names(state: dict, root: str, pairs: list) -> dict:
    pairs = [(r'^head', 'classifier'), (r'^blocks\.', f'{root}.encoder.layer.'), (r'^norm', f'{root}.layernorm'),
             *pairs,
             (r'^cls_token', f'{root}.embeddings.cls_token'), (r'^pos_embed', f'{root}.embeddings.position_embeddings'),
             (r'^patch_embed\.proj', f'{root}.embeddings.patch_embeddings.projection')]
    out = {}
    for key, value in state.items():
        name = _replaced(key, pairs)
        fused = 'attn.qkv' in key
        parts = zip(('query', 'key', 'value'), value.chunk(3), strict=True) if fused else [('', value)]
        out.update({name.replace('attn.qkv', f'attention.attention.{part}'): tensor for part, tensor in parts})
    return out


def torchvision_names(state: dict) -> dict:
    """torchvision.models.VisionTransformer."""
    pairs = [(r'^head', 'heads.head'), (r'^norm', 'encoder.ln'), (r'^blocks\.', 'encoder.layers.encoder_layer_'),
             (r'norm(\d)', r'ln_\1'), (r'attn\.qkv\.', 'self_attention.in_proj_'),
             (r'attn\.proj', 'self_attention.out_proj'),
             (r'mlp\.fc1', 'mlp.0'), (r'mlp\.fc2', 'mlp.3'), (r'^cls_token', 'class_token'),
             (r'^pos_embed', 'encoder.pos_embedding'), (r'^patch_embed\.proj', 'conv_proj')]
    return {_replaced(key, pairs): value for key, value in state.items()}


def stages_of(state: dict, division=DIVISION) -> list[dict]:
    """What the public code saves as `model_stages`: local block numbers."""
    stages, start = [], 0
    for i, depth in enumerate(division):
        own = [f'blocks.{b}.' for b in range(start, start + depth)]
        own += ['patch_embed', 'cls_token', 'pos_embed'] if i == 0 else []
        own += ['norm.', 'head.'] if i == len(division) - 1 else []
        stages.append({re.sub(r'^blocks\.(\d+)', lambda m, start=start: f'blocks.{int(m[1]) - start}', key): value
                       for key, value in state.items() if key.startswith(tuple(own))})
        start += depth
    return stages


def _public(state: dict) -> dict:
    twice = {f'stages.{i}.{key}': value for i, stage in enumerate(stages_of(state)) for key, value in stage.items()}
    return dict(model={**state, **twice}, model_stages=stages_of(state), optimizer=dict(state={}, param_groups=[]),
                lr_scheduler={}, epoch=99, scaler={})


def _mae(state: dict) -> dict:
    extra = {'mask_token': torch.zeros(1, 1, 16), 'decoder_pos_embed': torch.zeros(1, 17, 8),
             'decoder_embed.weight': torch.zeros(8, 16), 'decoder_blocks.0.norm1.weight': torch.zeros(8),
             'decoder_norm.bias': torch.zeros(8), 'decoder_pred.weight': torch.zeros(48, 8)}
    return dict(model={**headless(state), **extra})


def _off(state: dict) -> dict:
    return {key: value + 1 for key, value in state.items()}


def _below(prefix: str, state: dict) -> dict:
    return {f'{prefix}{key}': value for key, value in state.items()}


def _alone(named: dict, prefix: str) -> dict:
    return {key.removeprefix(prefix): value for key, value in named.items() if key.startswith(prefix)}


# name: (format that is recognised, content of the file for a ViT's state, whether it has a head)
FILES = {
    'timm.safetensors': ('timm', lambda s: s, True),
    'timm.pth': ('timm', lambda s: s, True),
    'timm_ddp.pth': ('timm', lambda s: _below('module.', s), True),
    'timm_train.pth.tar': ('timm', lambda s: dict(arch='vit', state_dict=_off(s), state_dict_ema=s), True),
    'deit.pth': ('deit', lambda s: dict(model=s), True),
    'deit_train.pth': ('deit', lambda s: dict(model=s, model_ema=_off(s), args=argparse.Namespace(lr=1)), True),
    'mae.pth': ('mae', _mae, False),
    'dinov2.pth': ('dinov2', lambda s: {**headless(s), 'mask_token': torch.zeros(1, 16)}, False),
    'mmpretrain.pth': ('mmpretrain', lambda s: dict(meta={}, state_dict=mmpretrain_names(s)), True),
    'mmpretrain_linear.pth': ('mmpretrain', lambda s: dict(state_dict=mmpretrain_names(s, 'head.fc')), True),
    'mmpretrain_backbone.pth': ('mmpretrain', lambda s: _alone(mmpretrain_names(s), 'backbone.'), False),
    'hf.safetensors': ('hf', hf_names, True),
    'hf.bin': ('hf', hf_names, True),
    'hf_model.safetensors': ('hf', lambda s: {**_alone(hf_names(s), 'vit.'), 'pooler.dense.bias': torch.ones(16),
                                              'embeddings.mask_token': torch.zeros(1, 1, 16)}, False),
    'hf_mim.safetensors': ('hf', lambda s: {**hf_names(headless(s)),
                                            'decoder.0.weight': torch.zeros(48, 16, 1, 1)}, False),
    'ijepa_like.safetensors': ('hf', lambda s: hf_names(s, 'ijepa'), True),
    'dinov2_hf.safetensors': ('hf-dinov2', lambda s: {**dinov2_hf_names(headless(s)), 'dinov2.embeddings.mask_token':
                                                      torch.zeros(1, 16)}, False),
    'torchvision.pth': ('torchvision', torchvision_names, True),
    'official.pth': ('official', _public, True),
    'official_doubled.pth': ('official', lambda s: dict(model=_public(s)['model']), True),
    'e2e.pth': ('mmengine', lambda s: dict(meta=dict(epoch=1), state_dict=_below('vit.', s)), True),
    'incub.pth': ('mmengine', lambda s: dict(
        state_dict={**_below('target.', s), **_below('meta.', _off(s))},
        position=dict(phase='finetune', phase_epoch=1)), True),
    'ours.safetensors': ('mmincubation', None, True),
}


def arch_for(name: str) -> Arch:
    """DINOv2 has LayerScale."""
    return Arch.parse({**ARCH.to_dict(), 'init_values': 1e-5}) if name.startswith('dinov2') else ARCH


def write_file(folder: Path, name: str) -> tuple[Path, dict]:
    """Write one of `FILES`; returns its path and the tensors that should be read from it, under timm's names."""
    state = random_vit(arch_for(name)).state_dict()
    _, content, head = FILES[name]
    if content is None:
        write_tensors(folder / name, state, dict(kind='vit', arch=ARCH.to_dict(), division=DIVISION))
    elif name.endswith('.safetensors'):
        save_file({key: value.contiguous().clone() for key, value in content(state).items()}, folder / name)
    else:
        torch.save(content(state), folder / name)
    return folder / name, state if head else headless(state)
