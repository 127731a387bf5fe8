"""Tell by its first bytes what kind of file a weight file is; the one notion of a file that can be read."""
import re
import zipfile
from pathlib import Path

from mmincubation.errors import CheckpointError

READ = 'what is read: .safetensors, what torch.save writes, an index of shards, a folder with one of these'
SHARD = re.compile(r'-(\d{5})-of-(\d{5})\.\w+')
MAGIC = b'\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'  # a number that begins torch's format before 1.6, which is still published
# The usual failed downloads, and files of other programs: the beginning, what it is and what to do.
FOREIGN = (
    (b'version https://git-lfs', 'is a Git LFS pointer, not the weights; run `git lfs pull` or download the file'),
    (b'<!doctype', 'is a web page, not weights; use the direct download link'),
    (b'<html', 'is a web page, not weights; use the direct download link'),
    (b'<?xml', 'is a web page, not weights; use the direct download link'),
    (b'\x89HDF', 'is an HDF5 file, as Keras writes; take the PyTorch weights of this model'),
    (b'\x93NUMPY', 'is a NumPy array; take the PyTorch weights of this model'),
    (b'GGUF', 'is a GGUF file; take the PyTorch weights of this model'),
    (b'\x1f\x8b', 'is compressed by gzip; unpack it'),
)
# Members of zip archives that torch.save did not write.
ARCHIVES = (
    ('constants.pkl', 'is a TorchScript program, which can do anything when it is loaded; where you trust it, write '
     "its weights anew: `torch.save(torch.jit.load('{path}', map_location='cpu').state_dict(), 'NEW.pth')`"),
    ('.npy', "is an archive of NumPy arrays, as JAX's ViTs are published; timm reads those: create the model by timm "
     'with checkpoint_path, and save its state_dict()'),
    ('serialized_exported_program.json', 'is a program of torch.export; save the state dict of the model instead'),
    ('archive_format', 'is a program of torch.export; save the state dict of the model instead'),
)


def kind_of(path: Path, shard: bool = False) -> str:
    """Return the kind of a weight file: `safetensors`, `archive` (torch.save), `pickle` (older torch) or `index`.

    Only its beginning and the end of an archive are read. One `shard` of a model is a fault, unless it is asked for.

    Raises:
        CheckpointError: the file does not exist, is truncated or of another kind; the message says which, and a remedy.
    """
    start = _start(path)
    if start.startswith(b'PK\x03\x04'):
        kind, fault = 'archive', _fault_of_archive(path)
    elif start[4:9] == b'\0\0\0\0{':  # after the size of the header, whose first bytes may look like a pickle's
        kind, fault = 'safetensors', None
    elif start[0] == 0x80 and start[1:2] <= b'\x05':
        kind, fault = 'pickle', None if MAGIC in start else (
            'is a pickle that torch.save did not write; nothing was executed. Save the state dict by torch.save, or '
            'convert it to safetensors')
    elif start[8:9] == b'{':  # a size that no header has
        kind, fault = 'safetensors', None
    elif path.suffix == '.json':
        kind, fault = 'index', None
    else:
        kind, fault = '', _foreign(path, start)
    if kind in ('archive', 'pickle') and path.suffix == '.safetensors':  # torch.load would go by the name
        fault = fault or 'is no safetensors file but one of torch.save, nothing was executed; rename it to .pth'
    if fault := fault or not shard and _fault_of_shard(path):
        raise CheckpointError(f'{path} {fault}')
    return kind


def _start(path: Path) -> bytes:
    if not path.is_file():
        raise CheckpointError(f'{path} does not exist or is no file; check the path, or download or train it first')
    with open(path, 'rb') as file:
        start = file.read(64)
    if not start.strip():
        raise CheckpointError(f'{path} is empty ({path.stat().st_size:,} bytes); download or write it again')
    return start


def _fault_of_archive(path: Path) -> str | None:
    if not zipfile.is_zipfile(path):
        return f'is truncated ({path.stat().st_size:,} bytes): the end of its archive is missing; write it again'
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    for end, fault in ARCHIVES:
        if any(name.endswith(end) for name in names):
            return fault.format(path=path)
    if not any(name.endswith('data.pkl') for name in names):
        return f'is a zip archive of {", ".join(names[:3])}, not a file of torch.save; {READ}'
    return None


def _fault_of_shard(path: Path) -> str | None:
    shard = SHARD.search(path.name)
    if shard and int(shard[2]) > 1:
        return (f'is shard {int(shard[1])} of {int(shard[2])} of a model; give the index of the shards (.index.json) '
                'or the folder')
    return None


def _foreign(path: Path, start: bytes) -> str:
    for beginning, fault in FOREIGN:
        if start.lstrip().lower().startswith(beginning.lower()):
            return fault
    if path.suffix == '.onnx' or start[0] == 8 and start[2:3] == b'\x12':  # its version, then the producer's name
        return ('is an ONNX graph, whose names and layouts differ between exports; take the PyTorch weights that it '
                'was made of')
    return (f'is no weight file ({path.stat().st_size:,} bytes, it begins with {start[:8]!r}); if it should be one, '
            f'download it again; {READ}')
