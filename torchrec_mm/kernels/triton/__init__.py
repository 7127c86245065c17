"""Triton kernels, for tensors on a GPU: each beside its definition in PyTorch, which tests hold it to.

Nothing here looks at devices: what calls decides (kernels/on_gpu.py). With TRITON_INTERPRET=1 they
run on the CPU, slowly, as tests do.

Read first: bank_softmax.py
"""
