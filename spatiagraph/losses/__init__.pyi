from . import (
    adversarial as adversarial,
)
from . import (
    condition_contrast as condition_contrast,
)
from . import (
    elastic_similarity as elastic_similarity,
)
from . import (
    flow_matching as flow_matching,
)
from . import (
    focal as focal,
)
from . import (
    gamma_ratio as gamma_ratio,
)
from . import (
    hierarchical as hierarchical,
)
from . import (
    info_nce as info_nce,
)
from . import (
    masked_cells as masked_cells,
)
from . import (
    masked_image as masked_image,
)
from . import (
    mean as mean,
)
from . import (
    negative_binomial as negative_binomial,
)
from . import (
    profile as profile,
)
from . import (
    sliced_wasserstein as sliced_wasserstein,
)
from . import (
    thinning as thinning,
)
from . import (
    token_diversity as token_diversity,
)
from . import (
    uncertainty as uncertainty,
)
from . import (
    zero_inflated_negative_binomial as zero_inflated_negative_binomial,
)
from .adversarial import LabelAdversary as LabelAdversary
from .adversarial import SourceAdversary as SourceAdversary
from .condition_contrast import (
    condition_contrast_loss as condition_contrast_loss,
)
from .condition_contrast import (
    wrong_transitions as wrong_transitions,
)
from .elastic_similarity import (
    elastic_similarity_loss as elastic_similarity_loss,
)
from .flow_matching import (
    confidence_weights as confidence_weights,
)
from .flow_matching import (
    velocity_error as velocity_error,
)
from .focal import focal_loss as focal_loss
from .gamma_ratio import log_gamma_ratio as log_gamma_ratio
from .hierarchical import hierarchical_bce as hierarchical_bce
from .hierarchical import leaf_descendants as leaf_descendants
from .info_nce import info_nce_loss as info_nce_loss
from .info_nce import paired_info_nce_loss as paired_info_nce_loss
from .masked_cells import masked_cells_loss as masked_cells_loss
from .masked_image import masked_image_loss as masked_image_loss
from .mean import masked_mean as masked_mean
from .negative_binomial import negative_binomial_nll as negative_binomial_nll
from .profile import niche_profile_loss as niche_profile_loss
from .sliced_wasserstein import pyramid_distance as pyramid_distance
from .sliced_wasserstein import sliced_wasserstein_loss as sliced_wasserstein_loss
from .thinning import thin as thin
from .token_diversity import token_diversity_loss as token_diversity_loss
from .uncertainty import UncertaintyWeights as UncertaintyWeights
from .zero_inflated_negative_binomial import (
    zero_inflated_negative_binomial_nll as zero_inflated_negative_binomial_nll,
)
