"""Do the backbones of studies/tiny.py differ downstream, and do k-NN and linear probe rank them as detectors do?

Mask R-CNN on nuclei and on persons, UperNet on CamVid: 400 iterations of batch 4 each, nothing tuned. `meta_only` has
four blocks, all others 24. The backbones cost 216 block-forwards an image; `scratch` begins with random weights.
"""
work_dir = 'work_dirs/study/transfer'
results = 'results/study/transfer'
_blocks = dict(meta_only=4)
_last = dict(e2e='e2e', meta_only='e2e')  # the phase whose weights are the backbone


def _weights(method, seed):
    return (f'work_dirs/study/tiny/100pct_216_{method}_seed{seed}/weights/'
            f'{_last.get(method, "finetune")}_last.safetensors')


def _shape(task, method):
    depth = _blocks.get(method, 24)
    taps = [depth * (i + 1) // 4 - 1 for i in range(4)]
    options = {'model.backbone.arch.depth': depth}
    if task == 'upernet_camvid':
        return options | {'model.backbone.out_indices': taps}
    return options | {'model.backbone.out_indices': [depth - 1], 'model.backbone.global_blocks': taps}


_methods = ('incub', 'e2e', 'grow_only', 'meta_only', 'scratch')
_tiny = 'data/tiny_imagenet_32'
runs = [
    *(dict(name=f'{task}_{method}', config=f'studies/configs/{task}.py', seeds=[seed], seconds=300,
           options={'experiment.method': method, **_shape(task, method)},
           **({} if method == 'scratch' else dict(weights=_weights(method, seed))))
      for seed in range(3) for task in ('maskrcnn_nuclei', 'maskrcnn_person', 'upernet_camvid')
      for method in _methods),
    *(dict(name=f'probe_{method}_{seed}', weights=_weights(method, seed), seconds=120, probe=dict(
        train=f'{_tiny}/train', val=f'{_tiny}/val', fraction=.1, crop_pct=1, method=method, seed=seed,
        model='ViT-24 w32', data='Tiny-ImageNet-32'))
      for seed in range(3) for method in _methods if method != 'scratch')]
