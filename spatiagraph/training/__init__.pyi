from . import (
    averaging as averaging,
)
from . import (
    devices as devices,
)
from . import (
    embedding as embedding,
)
from . import (
    fitting as fitting,
)
from . import (
    folder as folder,
)
from . import (
    generated as generated,
)
from . import (
    generating as generating,
)
from . import (
    health as health,
)
from . import (
    imputing as imputing,
)
from . import (
    module as module,
)
from . import (
    morphology as morphology,
)
from . import (
    progress as progress,
)
from . import (
    querying as querying,
)
from . import (
    record as record,
)
from . import (
    trainer as trainer,
)
from . import (
    transition_scores as transition_scores,
)
from . import (
    transitions as transitions,
)
from . import (
    transplanting as transplanting,
)
from .averaging import WarmAverage as WarmAverage
from .embedding import embed as embed
from .embedding import embed_data as embed_data
from .embedding import encode_cells as encode_cells
from .fitting import fit as fit
from .generated import GeneratedImages as GeneratedImages
from .generating import fit_generator as fit_generator
from .generating import generate as generate
from .health import effective_rank as effective_rank
from .imputing import impute as impute
from .module import TaskModule as TaskModule
from .morphology import MorphologyFit as MorphologyFit
from .morphology import fit_morphology as fit_morphology
from .querying import embed_query as embed_query
from .trainer import FitResult as FitResult
from .trainer import train as train
from .transition_scores import (
    TransitionScores as TransitionScores,
)
from .transition_scores import (
    score_transitions as score_transitions,
)
from .transitions import TransitionFit as TransitionFit
from .transitions import fit_transitions as fit_transitions
from .transplanting import transplant as transplant
