"""Protocols with their baselines."""
