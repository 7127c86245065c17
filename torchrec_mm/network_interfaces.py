"""What ranks on this machine could talk through, and what they could run into."""

import resource
import shutil
import socket
from pathlib import Path

from torchrec_mm import gpus

GIB = 2**30
SHM = Path("/dev/shm")
# Loaders and NCCL keep shared memory; containers give 64 MiB unless told otherwise.
ENOUGH_SHM_BYTES = GIB
ENOUGH_FILES = 4096


def gpu_links() -> dict[str, str]:
    """How each pair of GPUs copies: directly (NVLink or PCIe), or through the host's memory."""
    import torch

    count = gpus.count()
    pairs = [(a, b) for a in range(count) for b in range(a + 1, count)]
    if not pairs:
        return {}
    through_host = [f"{a}-{b}" for a, b in pairs if not torch.cuda.can_device_access_peer(a, b)]
    rule = "all pairs copy directly"
    if through_host:
        rule = f"through host memory: {', '.join(through_host)}"
    return {"GPU to GPU": rule}


def group_links() -> dict[str, str]:
    """Over which interfaces ranks would meet."""
    return {
        "network interfaces": ", ".join(name for _, name in socket.if_nameindex()) or "none",
        "own host name": own_host_name(),
    }


def own_host_name() -> str:
    """Whether ranks find this machine by its name."""
    name = socket.gethostname()
    try:
        address = socket.gethostbyname(name)
    except OSError:
        return f"no: {name} has no address; put it in /etc/hosts"
    alone = ", which only this machine reaches" if address.startswith("127.") else ""
    return f"{name}, {address}{alone}"


def limits() -> dict[str, str]:
    """Shared memory and open files, with the cure where they are scarce."""
    rows = {}
    if SHM.is_dir():
        size = shutil.disk_usage(SHM).total
        cure = "" if size >= ENOUGH_SHM_BYTES else "; scarce: docker run --shm-size=8g"
        rows["/dev/shm"] = f"{size / GIB:.1f} GiB{cure}"
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = files == resource.RLIM_INFINITY
    cure = "" if unlimited or files >= ENOUGH_FILES else f"; scarce: ulimit -n {ENOUGH_FILES}"
    rows["open files"] = f"{'unlimited' if unlimited else files}{cure}"
    locked, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    rows["locked memory"] = (
        "unlimited" if locked == resource.RLIM_INFINITY else f"{locked / 2**20:.0f} MiB"
    )
    return rows
