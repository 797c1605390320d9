from . import (
    expression as expression,
)
from . import (
    image as image,
)
from . import (
    label as label,
)
from . import (
    pair as pair,
)
from . import (
    pipeline as pipeline,
)
from . import (
    token_expression as token_expression,
)
from .expression import ExpressionHead as ExpressionHead
from .image import ImageGenerator as ImageGenerator
from .label import LabelHead as LabelHead
from .pair import (
    Signature as Signature,
)
from .pair import (
    Transition as Transition,
)
from .pair import (
    as_transitions as as_transitions,
)
from .pair import (
    gene_signature as gene_signature,
)
from .pair import (
    morphology_signature as morphology_signature,
)
from .pair import (
    pair_niches as pair_niches,
)
from .pair import (
    pair_states as pair_states,
)
from .pipeline import CellImagePipeline as CellImagePipeline
from .token_expression import TokenExpressionHead as TokenExpressionHead
