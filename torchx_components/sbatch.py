"""A plain sbatch script for an app of TorchX: one homogeneous job, no accounting needed."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Optional

from torchx.specs import AppDef, Role, macros

# Time for ranks to save and leave before the time limit, at which Slurm kills them.
STOP_BEFORE_S = 120

SCRIPT = """\
#!/bin/bash
{directives}

{exports}

# Nodes meet at the first one, at a port of this job's own: several jobs may share a node. Ten
# ports, for a pipeline's stages.
first_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
rendezvous="$first_node:$((15000 + SLURM_JOB_ID % 1500 * 10))"

# USR1 comes from --signal, before the time limit. SIGTERM makes the ranks save and leave; scancel
# sends it to them, while srun would answer one with SIGKILL.
stopped=false
trap 'stopped=true; scancel --signal=TERM "$SLURM_JOB_ID"' USR1

srun {srun} \\
    {command} &
step=$!
while :; do
    wait "$step"
    status=$?
    kill -0 "$step" 2>/dev/null || break # else a signal ended the wait, not the step
done

if ((status != 0)) && {{ "$stopped" || ((${{SLURM_RESTART_COUNT:-0}} < {max_retries})); }}; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
"""


def sbatch_script(app: AppDef, options: Mapping[str, Optional[str]]) -> str:
    """The script that runs an app on Slurm.

    Args:
        app: of one role, whose replicas are the nodes.
        options: of sbatch, name -> value; None leaves it to the cluster.

    Raises:
        ValueError: several roles, an option of several lines, or a variable no shell can hold.
    """
    if len(app.roles) != 1:
        raise ValueError(f"component must have one role, got {len(app.roles)}")
    (role,) = app.roles
    wanted = {"job-name": app.name} | resources(role) | dict(options)
    srun = f"--label --wait=60 --kill-on-bad-exit=1 --cpus-per-task={role.resource.cpu}"
    return SCRIPT.format(
        directives="\n".join(directive(name, v) for name, v in wanted.items() if v is not None),
        exports="\n".join(export(*variable) for variable in role.env.items()),
        srun=srun,
        command=" \\\n        ".join(command_lines(role)),
        max_retries=role.max_retries,
    )


def resources(role: Role) -> dict[str, Optional[str]]:
    """What sbatch is asked for; an option without a value is empty."""
    fewest, most = role.min_replicas or role.num_replicas, role.num_replicas
    return {
        "nodes": str(most) if fewest == most else f"{fewest}-{most}",
        "ntasks-per-node": "1",
        "cpus-per-task": str(role.resource.cpu),
        "mem": f"{role.resource.memMB}M",
        "gpus-per-node": str(role.resource.gpu) if role.resource.gpu > 0 else None,
        "signal": f"B:USR1@{STOP_BEFORE_S}",
        "requeue": "",
        "open-mode": "append",
    }


def directive(name: str, value: str) -> str:
    if not value.isprintable():
        raise ValueError(f"{name} must be one line of text, got {value!r}")
    return f"#SBATCH --{name}" + (f"={shlex.quote(value)}" if value else "")


def export(name: str, value: str) -> str:
    if not (name.isidentifier() and name.isascii()):
        raise ValueError(f"env must name variables of letters, digits and _, got {name!r}")
    return f"export {name}={in_shell(value)}"


def command_lines(role: Role) -> Iterator[str]:
    """The command of a node: one line for each flag and its values."""
    words = [role.entrypoint, *role.args]
    if words[:2] == ["bash", "-c"]:  # how TorchX writes torchrun
        words = shlex.split(words[2])
    line = in_shell(words[0])
    for word in words[1:]:
        if word.startswith("-"):
            yield line
            line = in_shell(word)
        else:
            line += f" {in_shell(word)}"
    yield line


def in_shell(word: str) -> str:
    """A word as bash reads it back, TorchX's macros replaced."""
    if word.startswith("$${" + macros.rank0_env):
        return '"$rendezvous"'
    parts = word.split(macros.app_id)
    quoted = [shlex.quote(part) if part or len(parts) == 1 else "" for part in parts]
    return '"$SLURM_JOB_ID"'.join(quoted)
