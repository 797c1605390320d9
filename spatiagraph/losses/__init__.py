"""One objective per file."""

from spatiagraph._lazy import attach

_NAMES = {
    "LabelAdversary": "adversarial",
    "SourceAdversary": "adversarial",
    "hierarchical_bce": "hierarchical",
    "info_nce_loss": "info_nce",
    "leaf_descendants": "hierarchical",
    "log_gamma_ratio": "gamma_ratio",
    "masked_cells_loss": "masked_cells",
    "masked_image_loss": "masked_image",
    "masked_mean": "mean",
    "negative_binomial_nll": "negative_binomial",
    "niche_profile_loss": "profile",
    "thin": "thinning",
    "token_diversity_loss": "token_diversity",
    "zero_inflated_negative_binomial_nll": "zero_inflated_negative_binomial",
}
_MODULES = (
    "adversarial",
    "gamma_ratio",
    "hierarchical",
    "info_nce",
    "masked_cells",
    "masked_image",
    "mean",
    "negative_binomial",
    "profile",
    "thinning",
    "token_diversity",
    "zero_inflated_negative_binomial",
)
__all__ = [*_NAMES, *_MODULES]
__getattr__, __dir__ = attach(__name__, _MODULES, _NAMES)
