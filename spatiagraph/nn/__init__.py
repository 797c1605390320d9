"""Learned blocks. Tensors in, tensors out."""
