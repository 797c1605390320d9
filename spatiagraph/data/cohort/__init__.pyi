from .cohort import Cohort as Cohort
from .creating import create_shard as create_shard
from .layout import is_cohort as is_cohort
from .lock import BusyError as BusyError
from .merging import merge_cohort as merge_cohort
from .part import CohortPart as CohortPart
from .tiles import StoredTiles as StoredTiles
from .tiles import TileStore as TileStore
