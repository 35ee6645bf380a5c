"""Weights and configurations from and to other libraries; torch is imported only when one of its objects is meant."""

from scratchrnn.interop import state_dict, torch

__all__ = ["state_dict", "torch"]
