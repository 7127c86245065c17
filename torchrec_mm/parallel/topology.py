"""The machines that a plan is for: these here, or some that need not be present."""

import os
from dataclasses import KW_ONLY, dataclass

import torch
from torchrec.distributed.planner.types import (
    HardwareConfig,
    KernelConfig,
    Topology,
    TopologyFactory,
    TrainerConfig,
)

from torchrec_mm.errors import InputError
from torchrec_mm.parallel.process_group import Worker

RESERVE = 0.15
GIB = 2**30

# GiB that a process can allocate on one device, after what the driver keeps. FBGEMM has code for
# each of them (torchrec_mm/gpus.py): none is older than Ampere.
DEVICES = {
    "a100": 79.0,
    "a100-40gb": 39.0,
    "b200": 178.0,
    "h100": 79.0,
    "h200": 139.0,
    "l4": 22.0,
    "l40s": 44.0,
}


@dataclass(frozen=True)
class Machines:
    """Equal nodes of equal devices.

    device: "cuda" or "cpu". world_size: ranks in all, one a device. devices_per_node: ranks that
    share a host. device_bytes: memory of a GPU, 0 on the CPU. host_bytes: memory of a node.

    Raises:
        InputError: no ranks, or nodes that are not full.
    """

    device: str
    _: KW_ONLY
    world_size: int
    devices_per_node: int
    device_bytes: int
    host_bytes: int

    def __post_init__(self) -> None:
        if self.world_size < 1:
            raise InputError(f"world_size must be at least 1, got {self.world_size}")
        if self.devices_per_node < 1 or self.world_size % self.devices_per_node:
            rule = f"world_size must be a multiple of devices_per_node ({self.devices_per_node})"
            raise InputError(f"{rule}, got {self.world_size}")

    @property
    def rank_host_bytes(self) -> int:
        """A rank's share of its node's memory."""
        return self.host_bytes // self.devices_per_node

    @property
    def rank_bytes(self) -> int:
        """The memory that tables lie in: the device's, on the CPU the rank's share of the host."""
        return self.device_bytes if self.device == "cuda" else self.rank_host_bytes

    @property
    def reserved_bytes(self) -> int:
        """Of each rank's memory, left to activations, the runtime and fragmentation."""
        return int(self.rank_bytes * RESERVE)

    def topology(self, dense_bytes: int) -> Topology:
        """For TorchRec's planner: capacities without the reserve and the dense part.

        At least 1 byte, as TorchRec takes 0 for unknown.
        TorchRec's own percentage is taken of GPU memory only, and would leave a CPU rank nothing.
        """
        free = max(1, self.rank_bytes - self.reserved_bytes - dense_bytes)
        host = int(self.rank_host_bytes * (1 - RESERVE))
        return TopologyFactory.create_topology(
            TrainerConfig(world_size=self.world_size, local_world_size=self.devices_per_node),
            HardwareConfig(
                hbm_cap_bytes=free if self.device == "cuda" else None,
                ddr_cap_bytes=host if self.device == "cuda" else free,
            ),
            KernelConfig(compute_device=self.device),
        )


def machines_here(worker: Worker) -> Machines:
    """The machines of this run, each taken to be like this one."""
    local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    on_gpu = worker.device.type == "cuda"
    return Machines(
        device=worker.device.type,
        world_size=worker.world_size,
        devices_per_node=local_world_size,
        device_bytes=torch.cuda.get_device_properties(worker.device).total_memory if on_gpu else 0,
        host_bytes=host_bytes_here(),
    )


def host_bytes_here() -> int:
    """Physical memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
