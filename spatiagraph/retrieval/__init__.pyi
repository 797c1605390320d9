from . import (
    allowed as allowed,
)
from . import (
    apart as apart,
)
from . import (
    backend as backend,
)
from . import (
    calibration as calibration,
)
from . import (
    cohort_index as cohort_index,
)
from . import (
    conditions as conditions,
)
from . import (
    filters as filters,
)
from . import (
    geojson as geojson,
)
from . import (
    grammar as grammar,
)
from . import (
    hits as hits,
)
from . import (
    index as index,
)
from . import (
    query as query,
)
from . import (
    regions as regions,
)
from . import (
    searching as searching,
)
from . import (
    selection as selection,
)
from . import (
    slides as slides,
)
from . import (
    storage as storage,
)
from . import (
    vectors as vectors,
)
from .calibration import SlideCalibration as SlideCalibration
from .cohort_index import index_cohort as index_cohort
from .cohort_index import merge_index as merge_index
from .hits import find_hits as find_hits
from .index import NicheIndex as NicheIndex
from .query import Query as Query
from .query import Selection as Selection
from .regions import in_region as in_region
from .regions import read_region as read_region
from .selection import select_rows as select_rows
