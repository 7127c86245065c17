"""FBGEMM's tables on the CPU, with a shorter way for bags of one id."""

import ctypes
import sys
from collections.abc import Iterator
from typing import Any

import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType, SparseType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    SplitTableBatchedEmbeddingBagsCodegen,
)
from torch import Tensor, nn

from torchrec_mm.kernels.one_id_bags import Bags, Tables, one_id_bags

LARGE_PAGE_BYTES = 2 << 20
MADV_HUGEPAGE, MADV_COLLAPSE = 14, 25  # linux/mman.h; the second since Linux 6.1


def use_one_id_forward(model: nn.Module) -> None:
    """Let fitting tables of ``model`` take batches of one-id bags the short way.

    Weights and optimizer state stay FBGEMM's own tensors, so checkpoints and learning rates are as
    before; a batch with a longer bag goes FBGEMM's way. Fitting are float32 tables on the CPU, of
    one width, with one feature each, and row-wise Adagrad or, as long as nothing learns, SGD.
    """
    for module in _modules(model):
        if isinstance(module, SplitTableBatchedEmbeddingBagsCodegen) and _fits(module):
            module.forward = OneIdBagForward(module)
            for weights in module.split_embedding_weights():
                use_large_pages(weights)


def use_large_pages(tensor: Tensor) -> None:
    """Ask Linux to hold a tensor on the host in pages of 2 MiB, where it can.

    Rows of a table are read at random: in small pages, nearly every one costs a walk through the
    page tables besides the row itself.
    """
    start = -(-tensor.data_ptr() // LARGE_PAGE_BYTES) * LARGE_PAGE_BYTES
    end = (tensor.data_ptr() + tensor.nbytes) // LARGE_PAGE_BYTES * LARGE_PAGE_BYTES
    if end > start and sys.platform == "linux":
        for advice in (MADV_HUGEPAGE, MADV_COLLAPSE):  # what it cannot do, it leaves as it is
            ctypes.CDLL(None).madvise(
                ctypes.c_void_p(start), ctypes.c_size_t(end - start), ctypes.c_int(advice)
            )


def _modules(model: nn.Module) -> Iterator[nn.Module]:
    """All modules, those too that a sharded module of TorchRec holds in a plain list."""
    for module in model.modules():
        yield module
        for lookup in getattr(module, "_lookups", []):
            yield from lookup.modules()


def _fits(module: SplitTableBatchedEmbeddingBagsCodegen) -> bool:
    return (
        module.use_cpu
        and module.optimizer in (EmbOptimType.EXACT_ROWWISE_ADAGRAD, EmbOptimType.EXACT_SGD)
        and module.optimizer_args.weight_decay == 0
        and not module.optimizer_args.gradient_clipping
        and module.weights_precision == SparseType.FP32
        and module.output_dtype == SparseType.FP32.as_int()
        and module.pooling_mode == PoolingMode.SUM
        and module.feature_table_map == list(range(len(module.embedding_specs)))
        and len({spec[1] for spec in module.embedding_specs}) == 1
    )


class OneIdBagForward:
    """Takes the place of ``forward``: batches that do not fit go to FBGEMM's own."""

    def __init__(self, module: SplitTableBatchedEmbeddingBagsCodegen) -> None:
        self.fbgemm_forward = module.forward
        self.learns = module.optimizer == EmbOptimType.EXACT_ROWWISE_ADAGRAD
        self.tables = Tables(
            module.split_embedding_weights(),
            [state[0] for state in module.split_optimizer_states()] if self.learns else [],
            [module.learning_rate_tensor] * len(module.embedding_specs),
            module.optimizer_args.eps,
        )

    def __call__(self, indices: Tensor, offsets: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if args or any(value is not None for value in kwargs.values()):
            return self.fbgemm_forward(indices, offsets, *args, **kwargs)
        if torch.is_grad_enabled() and not self.learns:
            return self.fbgemm_forward(indices, offsets)
        bags = Bags.of(self.tables, indices.long(), offsets.diff().int())
        if bags is None:
            return self.fbgemm_forward(indices, offsets)
        return one_id_bags(self.tables, bags)
