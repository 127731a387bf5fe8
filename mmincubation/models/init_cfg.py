"""What `init_cfg` may say in the models of this project."""


def valid_init_cfg(init_cfg: dict | None, owner: str, optional: tuple[str, ...] = ()) -> dict | None:
    """`init_cfg` as it is: weights come from a file, or from timm's initialisation (None).

    `optional` are keys that the `owner` takes besides `type` and `checkpoint`.

    Raises:
        ValueError: another way is asked for.
    """
    known = init_cfg is None or (isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained'
                                 and {'type', 'checkpoint'} <= set(init_cfg) <= {'type', 'checkpoint', *optional}
                                 and bool(init_cfg['checkpoint']))
    if not known:
        keys = ''.join(f', {key}=...' for key in optional)
        raise ValueError(f"{owner}: init_cfg={init_cfg}; give dict(type='Pretrained', checkpoint=PATH{keys}), "
                         'or None for random weights')
    return init_cfg
