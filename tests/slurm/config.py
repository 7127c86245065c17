"""What the servers of a cluster on this machine read."""

import getpass
import secrets
import socket
from pathlib import Path

# Addresses of the loopback as names: jobs find them without a line in /etc/hosts.
NODES = ("127.0.0.2", "127.0.0.3")
PARTITION = "cpu"

CONFIG = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1
MpiDefault=none
GresTypes=gpu
{nodes}
PartitionName={partition} Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = (
    "NodeName={name} NodeHostname=localhost NodeAddr={name} Port={port} "
    "CPUs=2 RealMemory=4000 Gres=gpu:2"
)


def write_config(folder: Path) -> None:
    """Write slurm.conf, gres.conf and munge.key, and make what the servers want to find."""
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(secrets.token_bytes(1024))
    controller_port, *ports = free_ports(1 + len(NODES))
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
    (folder / "slurm.conf").write_text(
        CONFIG.format(
            folder=folder,
            user=getpass.getuser(),
            controller_port=controller_port,
            partition=PARTITION,
            nodes="\n".join(
                NODE.format(name=name, port=port) for name, port in zip(NODES, ports, strict=True)
            ),
        )
    )


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
