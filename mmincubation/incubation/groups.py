"""Module-parallel incubation: which process trains what, and what they give each other when they are done."""
import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.utils._pytree import tree_map_only

from mmincubation.vit.spec import Division


class ModuleGroups:
    """A mesh (module, data) of all ranks: consecutive ranks train the same module.

    A rank of module g does for that module what K ranks do in a run without groups, one after another
    (`emulated_ranks`). So the batch of a step is the recipe's, and the weights are those of the other modes.
    """

    def __init__(self, division: Division, device: torch.device):
        self.division, self.device = division, device
        modules = len(division)
        self.width = get_world_size() // modules
        mesh = init_device_mesh(device.type, (modules, self.width), mesh_dim_names=('module', 'data'))
        self.module, place = get_rank() // self.width, get_rank() % self.width
        self.data_group = mesh.get_group('data')
        self.emulated_ranks = list(range(place * modules, (place + 1) * modules))

    def first_rank(self, module: int) -> int:
        """The rank that speaks for a module."""
        return module * self.width

    def exchange(self, target: nn.Module) -> None:
        """Give every rank the modules of all, one tensor at a time."""
        named = dict(target.named_parameters())
        for module in range(len(self.division)):
            for parameter in self.division.entries_of(named, module).values():
                self._broadcast(parameter.data, self.first_rank(module))

    def _broadcast(self, tensor: Tensor, source: int) -> None:
        on_device = tensor.to(self.device)
        distributed.broadcast(on_device, source)
        if on_device is not tensor:
            tensor.copy_(on_device)

    def collect(self, own: dict) -> dict:
        """The entries that the modules' first ranks have under `module_<i>`, all of them on rank 0.

        Tensors travel one at a time, and end on the CPU.
        """
        collected = {}
        for module in range(len(self.division)):
            name, source = f'module_{module}', self.first_rank(module)
            if source == get_rank() == 0:
                collected[name] = own[name]
            elif get_rank() == source:
                self._send(own[name])
            elif get_rank() == 0:
                collected[name] = self._receive(source)
        return collected

    def _send(self, state) -> None:
        # The structure goes first, its tensors without content.
        distributed.send_object_list([tree_map_only(Tensor, lambda t: t.to('meta'), state)], 0, device=self.device)
        tree_map_only(Tensor, lambda t: distributed.send(t.to(self.device).contiguous(), 0), state)

    def _receive(self, source: int):
        received = [None]
        distributed.recv_object_list(received, source, device=self.device)

        def fill(shape: Tensor) -> Tensor:
            tensor = torch.empty_like(shape, device=self.device)
            distributed.recv(tensor, source)
            return tensor.cpu()

        return tree_map_only(Tensor, fill, received[0])


def gather_losses(groups: ModuleGroups, loss: float) -> dict[str, float]:
    """The number of every module's first rank, by the module's name."""
    gathered = all_gather_object(loss)
    return {f'module_{i}': gathered[groups.first_rank(i)] for i in range(len(groups.division))}
