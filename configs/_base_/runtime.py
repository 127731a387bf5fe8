"""Runtime of every run: hooks, logs, environment, seed. The data and schedule files add what their task needs."""
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='mmincubation.CheckpointHook', interval=1, max_keep_ckpts=1))
custom_hooks = [
    dict(type='mmincubation.CostMeter'),
    dict(type='mmincubation.ResultHook'),
]
log_processor = dict(type='mmincubation.PhaseLogProcessor', by_epoch=True)
env_cfg = dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=1))
randomness = dict(seed=0)
log_level = 'INFO'
