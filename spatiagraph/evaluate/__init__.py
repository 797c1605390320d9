"""Protocols with their baselines. They take arrays, so any embedding can be scored."""

from spatiagraph._lazy import attach

_NAMES = {
    "EntrySplit": "entries",
    "ImputationSplit": "imputation",
    "cluster_domains": "clustering",
    "domain_baselines": "baselines",
    "gene_pearson": "prediction",
    "imputation_splits": "imputation",
    "log_normalize": "baselines",
    "neighbor_mean": "baselines",
    "pca": "baselines",
    "pearson_given": "prediction",
    "ridge_on": "imputation",
    "run_protocols": "protocols",
    "score_domains": "clustering",
    "score_entry_imputation": "entries",
    "score_imputation": "imputation",
    "score_probe": "probe",
}
_MODULES = (
    "baselines",
    "clustering",
    "entries",
    "genes",
    "imputation",
    "inputs",
    "prediction",
    "probe",
    "protocols",
)
__all__ = [*_NAMES, *_MODULES]
__getattr__, __dir__ = attach(__name__, _MODULES, _NAMES)
