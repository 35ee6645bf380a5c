"""CPU kernels in Numba: the definition's numbers, at the speed of the machine's fused multiply-adds."""
