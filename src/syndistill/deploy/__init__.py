"""Networks at work: streaming, export, a runtime and compiled kernels that need no PyTorch."""
