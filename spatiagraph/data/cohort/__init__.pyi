from .cohort import Cohort as Cohort
from .layout import is_cohort as is_cohort
from .lock import BusyError as BusyError
from .tiles import StoredTiles as StoredTiles
from .tiles import TileStore as TileStore
