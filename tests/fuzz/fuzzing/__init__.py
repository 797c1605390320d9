"""Damaged files and wrong options from a seed, and what becomes of them."""
