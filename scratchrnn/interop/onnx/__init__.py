"""ONNX's RNN and LSTM nodes to layers of this package and back; onnx is imported inside the functions only.

pip install "scratchrnn[onnx]"
"""

from scratchrnn.interop.onnx.exporting import export_model
from scratchrnn.interop.onnx.graph import ImportedModel, Input
from scratchrnn.interop.onnx.importing import import_model

__all__ = ["ImportedModel", "Input", "export_model", "import_model"]
