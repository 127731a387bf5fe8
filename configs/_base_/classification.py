"""What every classifier of the paper shares: metric, hooks, pictures."""
_base_ = './runtime.py'
default_scope = 'mmengine'
val_evaluator = dict(type='mmincubation.Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(visualization=dict(type='mmincubation.ClsVisualizationHook'))
custom_hooks = [
    dict(type='mmincubation.CostMeter'),
    dict(type='mmincubation.ResultHook'),
    dict(type='mmincubation.WeightsHook'),
]
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
