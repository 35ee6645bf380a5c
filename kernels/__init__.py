"""Kernels: arrays in, arrays out. A leaf, imported as `scratchrnn.kernels` and only by `scratchrnn.backends`."""
