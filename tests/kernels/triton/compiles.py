"""Compile every kernel for a GPU that need not be here, by Triton's own compiler and ptxas.

As a process of its own, as triton interprets kernels in that of the tests:
``python -m tests.kernels.triton.compiles CAPABILITY``. Prints a kernel's name when it has its code.
"""

import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from torchrec_mm.kernels.triton import bank_softmax, gathered_attention, general_search

F, I32, I64, I8, HALF, FLAG = "*fp32", "*i32", "*i64", "*i8", "*fp16", "*i1"
ATTENTION = (F, F, I32, I32, F, F, I32, F, F)
FLAGS = {"HAS_COSINE": True, "HAS_REQUEST": True}
WIDTH = 512
BLOCKS = {"BLOCK_B": bank_softmax.BLOCK_B, "BLOCK_M": bank_softmax.BLOCK_M}
TILES = {"BLOCK_K": gathered_attention.BLOCK_K, "BLOCK_E": 64}

# Kernel -> the types of its arguments, and the constants of one that has everything.
KERNELS = [
    (
        bank_softmax._kernel,
        (F, HALF, I64, I64, I64, I64, FLAG, F, F, F, "i32", "i32", "i32", "i32"),
        {"HAS_VALID": True, "A": 2, "BLOCK_D": WIDTH} | BLOCKS,
    ),
    (gathered_attention._forward, (*ATTENTION, "i32", "i32", "fp32"), FLAGS | TILES),
    (gathered_attention._backward, (*ATTENTION, F, F, F, F, "i32", "i32", "fp32"), FLAGS | TILES),
    (gathered_attention._mean, (F, I32, I32, F, "i32", "i32"), TILES),
    (gathered_attention._mean_backward, (F, I32, I32, F, "i32", "i32"), TILES),
    (
        general_search._compare,
        (I8, I32, I32, F, F, I64, I64, I64, F, F, F, "i32", "i32"),
        {"BLOCK_L": general_search.BLOCK_L, "BLOCK_D": 128, "BLOCK_N": 16},
    ),
    (
        general_search._pick,
        (F, F, I64, I64, I32, I32, F, "i32"),
        {"BLOCK": general_search.BLOCK_PICK},
    ),
]


def main(capability: int) -> None:
    """Compile them for one compute capability, such as 90."""
    target = GPUTarget("cuda", capability, 32)
    for kernel, types, constants in KERNELS:
        names = [name for name in kernel.arg_names if name not in constants]
        signature = dict(zip(names, types, strict=True)) | dict.fromkeys(constants, "constexpr")
        options = {"num_warps": 8, "num_stages": 1} if kernel is bank_softmax._kernel else {}
        source = ASTSource(kernel, signature, constants)
        code = triton.compile(source, target=target, options=options)
        assert code.asm["cubin"]
        assert code.metadata.shared <= bank_softmax.shared_bytes(WIDTH)
        print(kernel.__name__, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
