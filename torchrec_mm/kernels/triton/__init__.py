"""Triton kernels, for tensors on a GPU; tests hold each of them to its definition in PyTorch.

Nothing here looks at devices: what calls decides (kernels/on_gpu.py). With TRITON_INTERPRET=1 they
run on the CPU, slowly, as tests do.

Read first: bank_softmax.py
"""
