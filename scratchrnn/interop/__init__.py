"""Weights, configurations and graphs from and to other libraries.

torch and onnx are imported only when one of their objects is meant; keras never is.
"""

from scratchrnn.interop import keras, onnx, state_dict, torch

__all__ = ["keras", "onnx", "state_dict", "torch"]
