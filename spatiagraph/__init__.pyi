from . import (
    clustering as clustering,
)
from . import (
    data as data,
)
from . import (
    evaluate as evaluate,
)
from . import (
    flow as flow,
)
from . import (
    graph as graph,
)
from . import (
    heads as heads,
)
from . import (
    inference as inference,
)
from . import (
    kernels as kernels,
)
from . import (
    keys as keys,
)
from . import (
    losses as losses,
)
from . import (
    models as models,
)
from . import (
    nn as nn,
)
from . import (
    pairing as pairing,
)
from . import (
    plot as plot,
)
from . import (
    report as report,
)
from . import (
    retrieval as retrieval,
)
from . import (
    tasks as tasks,
)
from . import (
    testing as testing,
)
from . import (
    training as training,
)
from .data.cohort import Cohort as Cohort
from .data.colocalization import colocalized_genes as colocalized_genes
from .data.convert import to_data as to_data
from .data.image import SlideImage as SlideImage
from .data.panel import GenePanel as GenePanel
from .data.read import read as read
from .data.slide import Slide as Slide
from .data.synthetic import make_tissue as make_tissue
from .data.writing import write as write
from .inference.domains import domain_curve as domain_curve
from .inference.domains import domains as domains
from .inference.embedding import embed as embed
from .inference.generating import generate as generate
from .report.slide_report import report_slide as report_slide
from .retrieval import NicheIndex as NicheIndex
from .training.fitting import fit as fit
from .training.run import Run as Run

__version__: str
