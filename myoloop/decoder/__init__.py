"""Decoders: networks, ONNX export and runtime."""
