"""One objective per file."""

from spatiagraph._lazy import attach

_NAMES = {
    "LabelAdversary": "adversarial",
    "SourceAdversary": "adversarial",
    "condition_contrast_loss": "condition_contrast",
    "confidence_weights": "flow_matching",
    "flow_matching_loss": "flow_matching",
    "hierarchical_bce": "hierarchical",
    "info_nce_loss": "info_nce",
    "leaf_descendants": "hierarchical",
    "log_gamma_ratio": "gamma_ratio",
    "masked_cells_loss": "masked_cells",
    "masked_image_loss": "masked_image",
    "masked_mean": "mean",
    "negative_binomial_nll": "negative_binomial",
    "niche_profile_loss": "profile",
    "sliced_wasserstein_loss": "sliced_wasserstein",
    "thin": "thinning",
    "token_diversity_loss": "token_diversity",
    "velocity_error": "flow_matching",
    "wrong_transitions": "condition_contrast",
    "zero_inflated_negative_binomial_nll": "zero_inflated_negative_binomial",
}
_MODULES = (
    "adversarial",
    "condition_contrast",
    "flow_matching",
    "gamma_ratio",
    "hierarchical",
    "info_nce",
    "masked_cells",
    "masked_image",
    "mean",
    "negative_binomial",
    "profile",
    "sliced_wasserstein",
    "thinning",
    "token_diversity",
    "zero_inflated_negative_binomial",
)
__all__ = [*_NAMES, *_MODULES]
__getattr__, __dir__ = attach(__name__, _MODULES, _NAMES)
