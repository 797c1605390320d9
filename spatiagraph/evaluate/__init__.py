"""Protocols with their baselines. They take arrays, so any embedding can be scored."""

from spatiagraph._lazy import attach

_NAMES = {
    "EntrySplit": "entries",
    "ImputationSplit": "imputation",
    "choose_genes": "image_to_genes",
    "cluster_domains": "clustering",
    "color_texture": "image_features",
    "domain_baselines": "baselines",
    "frechet_distance": "generation",
    "gene_pearson": "prediction",
    "image_baselines": "image_features",
    "imputation_splits": "imputation",
    "kernel_distance": "generation",
    "log_normalize": "baselines",
    "neighbor_mean": "baselines",
    "network_features": "image_features",
    "pca": "baselines",
    "pearson_given": "prediction",
    "random_folds": "probe",
    "ridge_map": "cross_modal",
    "ridge_on": "imputation",
    "run_protocols": "protocols",
    "score_clusters": "cluster_sweep",
    "score_domains": "clustering",
    "score_entry_imputation": "entries",
    "score_image_to_genes": "image_to_genes",
    "score_imputation": "imputation",
    "score_morphology": "generation",
    "score_probe": "probe",
    "score_retrieval": "cross_modal",
}
_MODULES = (
    "baselines",
    "cluster_sweep",
    "clustering",
    "cross_modal",
    "entries",
    "generation",
    "genes",
    "image_features",
    "image_to_genes",
    "imputation",
    "inputs",
    "prediction",
    "probe",
    "protocols",
)
__all__ = [*_NAMES, *_MODULES]
__getattr__, __dir__ = attach(__name__, _MODULES, _NAMES)
