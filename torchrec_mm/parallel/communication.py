"""Embeddings and their gradients between ranks in fewer bytes."""

import torch
import torch.distributed as dist
from torchrec.distributed.fbgemm_qcomm_codec import (
    CommType,
    QCommsConfig,
    get_qcomm_codecs_registry,
)
from torchrec.distributed.types import QuantizedCommCodecs

from torchrec_mm.errors import InputError

COMMUNICATIONS = ("fp32", "fp16", "bf16")


def communication_codecs(precision: str) -> dict[str, QuantizedCommCodecs] | None:
    """Codecs for one of COMMUNICATIONS, None for fp32; InputError for others, or off NCCL."""
    if precision not in COMMUNICATIONS:
        rule = f"communication must be one of {', '.join(COMMUNICATIONS)}"
        raise InputError(f"{rule}, got {precision}")
    if precision == "fp32":
        return None
    if dist.get_backend() != "nccl":
        raise InputError(f"communication must be fp32 on {dist.get_backend()}, got {precision}")
    return get_qcomm_codecs_registry(
        QCommsConfig(
            forward_precision=CommType(precision),
            backward_precision=CommType.BF16,  # gradients underflow in fp16
        ),
        device=torch.device("cuda"),
    )
