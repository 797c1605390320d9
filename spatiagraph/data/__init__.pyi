from . import (
    convert as convert,
)
from . import (
    image as image,
)
from . import (
    labels as labels,
)
from . import (
    loader as loader,
)
from . import (
    morphology as morphology,
)
from . import (
    nuclei as nuclei,
)
from . import (
    panel as panel,
)
from . import (
    read as read,
)
from . import (
    slide as slide,
)
from . import (
    splits as splits,
)
from . import (
    synthetic as synthetic,
)
from . import (
    tokens as tokens,
)
from . import (
    transcripts as transcripts,
)
from . import (
    units as units,
)
from . import (
    writing as writing,
)
from .convert import TissueData as TissueData
from .convert import to_data as to_data
from .image import SlideImage as SlideImage
from .labels import LabelSet as LabelSet
from .loader import (
    HierarchicalLoader as HierarchicalLoader,
)
from .loader import (
    PairLoader as PairLoader,
)
from .loader import (
    TileLoader as TileLoader,
)
from .loader import (
    pairs_of_cells as pairs_of_cells,
)
from .morphology import MORPHOLOGY as MORPHOLOGY
from .morphology import measure_morphology as measure_morphology
from .nuclei import measure_nuclei as measure_nuclei
from .nuclei import read_nuclei as read_nuclei
from .panel import GenePanel as GenePanel
from .slide import Slide as Slide
from .synthetic import make_tissue as make_tissue
from .writing import write as write
