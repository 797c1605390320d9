"""Protocols with their baselines. They take arrays, so any embedding can be scored."""

from spatiagraph._lazy import attach

_NAMES = {
    "cluster_domains": "clustering",
    "domain_baselines": "baselines",
    "log_normalize": "baselines",
    "neighbor_mean": "baselines",
    "pca": "baselines",
    "run_protocols": "protocols",
    "score_domains": "clustering",
    "score_probe": "probe",
}
_MODULES = ("baselines", "clustering", "genes", "inputs", "probe", "protocols")
__all__ = [*_NAMES, *_MODULES]
__getattr__, __dir__ = attach(__name__, _MODULES, _NAMES)
