"""What the MM packages read for a run is read as data: no file but a config can bring code."""
import yaml
from mmengine.fileio import PickleHandler, YamlHandler, register_handler
from mmengine.runner import CheckpointLoader

from mmincubation.checkpoints import read_tensors
from mmincubation.checkpoints.hub import SCHEME, WEB
from mmincubation.compat.safe_globals import read_checkpoints_as_data
from mmincubation.errors import ConfigError

from .keys import PICKLE


class DataYaml(YamlHandler):
    """YAML whose tags make numbers, text, lists and dicts alone; mmengine's own calls whatever a tag names."""

    def load_from_fileobj(self, file, **kwargs):
        """Raises ConfigError on any other tag, and on what is no YAML."""
        try:
            return yaml.safe_load(file)
        except yaml.YAMLError as error:
            reason = ' '.join(str(error).split())
            raise ConfigError(f'YAML: {reason}; only plain data are read, nothing was executed') from error


class NoPickle(PickleHandler):
    """Writes pickles (predictions of a test) and reads none: mmengine's data sets would take one as annotations."""

    def load_from_fileobj(self, file, **kwargs):
        """Raises ConfigError."""
        raise ConfigError(f'the file {PICKLE}')


def read_data_only() -> None:
    """Make mmengine's readers refuse code, in this process; the tools call it first, more calls change nothing.

    Checkpoints from local files, the hub and the web are read by `read_tensors`, those of mmengine's own names
    (torchvision, open-mmlab, mmcls) with weights_only, which torch hub leaves off and mmengine does not ask for.
    """
    read_checkpoints_as_data(load_from_local)
    for scheme in (SCHEME, *WEB):
        CheckpointLoader.register_scheme(scheme, load_from_local, force=True)
    register_handler(['yaml', 'yml'])(DataYaml)
    register_handler(['pickle', 'pkl'])(NoPickle)


def load_from_local(filename: str, map_location=None) -> dict:
    """Return a checkpoint's content as mmengine's function does, wherever it was on the CPU: what loads it copies it.

    Not mapped: a run may write over the file.

    Raises:
        CheckpointError: the file cannot be read as data.
    """
    return read_tensors(filename, mapped=False)[0]
