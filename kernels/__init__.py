"""The kernels, one folder each: eager PyTorch is the definition, the fused versions stand beside it."""
