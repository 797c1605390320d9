from . import (
    annotation as annotation,
)
from . import (
    base as base,
)
from . import (
    defaults as defaults,
)
from . import (
    image_flow as image_flow,
)
from . import (
    masked_genes as masked_genes,
)
from . import (
    morphology as morphology,
)
from . import (
    niches as niches,
)
from . import (
    spatia as spatia,
)
from .annotation import Annotation as Annotation
from .base import LossOutput as LossOutput
from .base import Task as Task
from .defaults import default_task as default_task
from .image_flow import ImageFlow as ImageFlow
from .masked_genes import MaskedGenes as MaskedGenes
from .morphology import MorphologyRegression as MorphologyRegression
from .spatia import SpatiaPretraining as SpatiaPretraining
from .spatia import SpatiaWeights as SpatiaWeights
