"""The `init_cfg` of the models of this project."""


def valid_init_cfg(init_cfg: dict | None, owner: str, optional: tuple[str, ...] = ()) -> dict | None:
    """Return `init_cfg` if it names a file of weights, or is None (timm's initialisation).

    `prefix` chooses among several ViTs in the file. `optional` are keys that the `owner` takes besides these.

    Raises:
        ValueError: `init_cfg` has another form.
    """
    optional = ('prefix', *optional)
    valid = init_cfg is None or (isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained'
                                 and {'type', 'checkpoint'} <= set(init_cfg) <= {'type', 'checkpoint', *optional}
                                 and bool(init_cfg['checkpoint']))
    if not valid:
        keys = ''.join(f', {key}=...' for key in optional)
        raise ValueError(f"{owner}: init_cfg={init_cfg}; give dict(type='Pretrained', checkpoint=PATH{keys}), "
                         'or None for random weights')
    return init_cfg
