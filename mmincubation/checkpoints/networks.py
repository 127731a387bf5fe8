"""Name a network that is no plain ViT, by the names and shapes of its tensors."""
import re
from collections.abc import Mapping

from torch import Tensor

# (what it is, a key that it has, a key that would make it another one). The first row that fits names the network, so
# special rows come before general ones. Names are timm's, transformers', mmpretrain's and those of the authors.
NETWORKS = (
    ('a Swin Transformer', r'(layers|stages|features)\.\d+\.(blocks\.)?\d+\.att\w+\..*(relative_position|logit_scale)',
     None),
    ('a ConvNeXt', r'(stages|features)\.\d+\.(blocks\.|layers\.)?\d+\.'
     r'((conv_dw|dwconv|depthwise_conv)\.|block\.0\.(weight|bias)$)', None),
    ('XCiT, whose attention is between channels', r'\blocal_mp\.', None),
    ('a hybrid whose patches are made by a CNN', r'\bpatch_embed\.(backbone|proj\.\d+)\.', None),
    ('a ResNet', r'\blayer1\.0\.conv1\.|\bencoder\.stages\.0\.layers\.0\.layer\.0\.convolution\.', None),
    ('CLIP or SigLIP, an image and a text network in one', r'\b(text_model|text_projection|token_embedding|'
     r'visual\.transformer|visual\.trunk)\b', None),
    ("a ViT with a norm before its blocks, as CLIP's image network",
     r'\b(pre_layrnorm|norm_pre|pre_norm|ln_pre|pre_ln)\.', None),
    ('a ViT with relative positions in each block, as in SAM', r'\b(rel_pos_[hw]|(shared_)?rel_pos\.mlp)\b',
     None),
    ('BEiT, which has relative position biases', r'relative_position_bias|\brel_pos_bias\b', None),
    ('DINOv3, which has rotary positions', r'\bstorage_tokens$|\blayer\.\d+\.attention\.o_proj\.|\bqkv\.bias_mask$',
     None),
    ('a ViT with rotary positions (EVA-02, DINOv3)', r'\brope(_embed)?\.', None),
    ('CaiT, whose class token enters late', r'\bblocks_token_only\.', None),
    ("BEiT or data2vec, whose keys have no bias", r'\blambda_1$', None),
    ('a ViT whose MLPs are gated (SwiGLU: DINOv2 giant, EVA-02)', r'\bmlp\.(w12|w1|weights_in|fc1_g|gate_proj)\.',
     None),
    ('a ViT without pos_embed, whose positions are rotary (DINOv3)', r'\bgamma_1$', r'\bpos_embed$'),
    ('EVA or BEiT, whose keys have no bias', r'\battn\.(q_bias|qkv\.q_bias)$|\battention\.query\.bias$',
     r'\battention\.key\.bias$'),
    ('a ViT of the BEiT or EVA family (gamma_1)', r'\bgamma_1$', None),
    ('a ViT that scales queries and keys (q_norm)', r'\battn\.(q_norm|k_norm)\.', None),
    ('a ViT with more norms in its blocks (BEiT-3, EVA-02)',
     r'\b(attn|mlp)\.(norm|ffn_ln|inner_attn_ln|sub_norm)\.', None),
    ('a ViT whose attention and MLP run side by side', r'\bblocks\.\d+\.(in_proj|attns|mlps)\.', None),
    ('a distilled DeiT, which has a second token and a second head', r'\b(dist_token|distillation_token)$', None),
    ("a ViT with attention pooling, as SigLIP's image network", r'\b(attn_pool|head\.attention)\.|\bhead\.probe$',
     None),
    ("CLIP's or SigLIP's image network", r'\blayers\.\d+\.self_attn\.q_proj\.', None),
    ('a ViT with a norm after the patches', r'\bpatch_embed\.norm\.', None),
    ('a NaFlexViT', r'\bembeds\.proj\.', None),
)
# Not among timm's ViTs that mmincubation.TimmViT runs.
NOT_IN_TIMM_VIT = ('a Swin', 'a ConvNeXt', 'XCiT', 'a hybrid', 'a ResNet', 'BEiT', 'a ViT with relative positions',
                   'CaiT', 'a NaFlexViT', 'a ViT whose patch kernel')
REGISTERS = re.compile(r'\b(reg_token|register_tokens)$')


def name_network(tensors: Mapping[str, Tensor]) -> str | None:
    """Return what a network is that is no plain ViT, and a key that shows it; None if no other network is known.

    The tensors may have any program's names.
    """
    for what, has, lacks in NETWORKS:
        if (key := _first(has, tensors)) and not (lacks and _first(lacks, tensors)):
            return f'{what} ({key})'
    return _by_shapes(tensors)


def way_in(network: str) -> str:
    """Return how weights of a network, in the words of `name_network`, can be used, to be added to a message."""
    return '' if network.startswith(NOT_IN_TIMM_VIT) else ', or in detectors and segmentors take mmincubation.TimmViT'


def _first(pattern: str, tensors: Mapping[str, Tensor]) -> str | None:
    return next((str(key) for key in tensors if re.search(pattern, str(key))), None)


def _by_shapes(tensors: Mapping[str, Tensor]) -> str | None:
    tensors = {key: value for key, value in tensors.items() if isinstance(value, Tensor)}
    if token := next((key for key in tensors if REGISTERS.search(key)), None):
        shape = tuple(tensors[token].shape)
        return f'a ViT with register tokens ({token} of shape {shape}), for which this ViT has no place'
    fc1, fc2 = (tensors.get(f'blocks.0.mlp.{name}.weight') for name in ('fc1', 'fc2'))
    if fc1 is not None and fc2 is not None and fc1.shape[0] == 2 * fc2.shape[1]:
        return 'a ViT whose MLPs are gated (SwiGLU: DINOv2 giant)'
    if 'blocks.0.norm1.weight' in tensors and not any(re.search(r'norm1\.bias$', key) for key in tensors):
        return 'a ViT whose norms have no bias (RMSNorm)'
    patch = tensors.get('patch_embed.proj.weight')
    if patch is not None and patch.ndim != 4:
        return f'a ViT whose patch kernel has {patch.ndim} dimensions (video)'
    return None
