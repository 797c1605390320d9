from . import (
    coupling as coupling,
)
from . import (
    path as path,
)
from . import (
    randomness as randomness,
)
from . import (
    sampling as sampling,
)
from . import (
    solve as solve,
)
from . import (
    times as times,
)
from .coupling import (
    Coupling as Coupling,
)
from .coupling import (
    couple as couple,
)
from .coupling import (
    couple_many as couple_many,
)
from .coupling import (
    pair_cost as pair_cost,
)
from .coupling import (
    row_confidence as row_confidence,
)
from .coupling import (
    transport_plan as transport_plan,
)
from .path import LinearPath as LinearPath
from .path import PathPoint as PathPoint
from .randomness import named_generator as named_generator
from .randomness import named_rng as named_rng
from .sampling import Sampling as Sampling
from .solve import Solution as Solution
from .solve import guided as guided
from .solve import integrate as integrate
from .times import (
    sample_times as sample_times,
)
from .times import (
    skewed_times as skewed_times,
)
from .times import (
    uniform_grid as uniform_grid,
)
