"""CUDA kernels through numba.cuda. Importing this package, or any module of it, touches neither CUDA nor numba.cuda."""
