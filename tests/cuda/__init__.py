"""Tests of the CUDA kernels; those that need no GPU compile them to PTX and run that."""
