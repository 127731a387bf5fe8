"""Module-parallel incubation: the ranks that train each module, and the exchange of modules between them."""
import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from torch import Tensor, distributed, nn
from torch.utils._pytree import tree_map_only

from mmincubation.vit.spec import Division


class ModuleGroups:
    """Equal groups of all ranks, in which consecutive ranks train the same module.

    Each rank emulates K ranks of a run without groups, one after another (`emulated_ranks`). So the total batch of a
    step is the recipe's, and the weights become those of the other modes.
    """

    def __init__(self, division: Division, device: torch.device):
        self.division, self.device = division, device
        modules = len(division)
        self.width = get_world_size() // modules
        self.module, place = get_rank() // self.width, get_rank() % self.width
        # A new group has torch's timeout, unless it is given the run's (`env_cfg.dist_cfg.timeout`).
        timeout = distributed.group.WORLD._get_backend(device).options._timeout
        self.data_group, _ = distributed.new_subgroups(self.width, timeout=timeout)
        self.emulated_ranks = list(range(place * modules, (place + 1) * modules))

    def first_rank(self, module: int) -> int:
        """Return the first rank of a module's group, which sends its weights and logs its losses."""
        return module * self.width

    def exchange(self, target: nn.Module) -> None:
        """Broadcast all modules from the first ranks of their groups to all ranks, one tensor at a time."""
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
        """Send the entry `module_<i>` of each group's first rank to rank 0; return all entries there, else none.

        Tensors are sent one at a time, and received on the CPU.
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
        # First the structure, with tensors on the meta device, so that the receiver can allocate them.
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
    """Return the losses of the first ranks of all groups, by the names of their modules."""
    gathered = all_gather_object(loss)
    return {f'module_{i}': gathered[groups.first_rank(i)] for i in range(len(groups.division))}
