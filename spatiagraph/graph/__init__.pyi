from . import (
    build as build,
)
from . import (
    encode as encode,
)
from . import (
    enrichment as enrichment,
)
from . import (
    hierarchy as hierarchy,
)
from . import (
    order as order,
)
from . import (
    pairs as pairs,
)
from . import (
    points as points,
)
from . import (
    tiles as tiles,
)
from .build import (
    delaunay_graph as delaunay_graph,
)
from .build import (
    grid_graph as grid_graph,
)
from .build import (
    group_graph as group_graph,
)
from .build import (
    knn_graph as knn_graph,
)
from .build import (
    radius_graph as radius_graph,
)
from .encode import (
    distance_rbf as distance_rbf,
)
from .encode import (
    edge_direction as edge_direction,
)
from .encode import (
    normalize_positions as normalize_positions,
)
from .encode import (
    position_encoding as position_encoding,
)
from .enrichment import neighbor_enrichment as neighbor_enrichment
from .hierarchy import (
    cluster_niches as cluster_niches,
)
from .hierarchy import (
    grid_niches as grid_niches,
)
from .hierarchy import (
    grid_patches as grid_patches,
)
from .hierarchy import (
    kd_parts as kd_parts,
)
from .hierarchy import (
    label_niches as label_niches,
)
from .hierarchy import (
    neighborhood_niches as neighborhood_niches,
)
from .hierarchy import (
    niche_positions as niche_positions,
)
from .hierarchy import (
    sub_slices as sub_slices,
)
from .order import hilbert_order as hilbert_order
from .pairs import NodeKind as NodeKind
from .pairs import known_pairs as known_pairs
from .tiles import k_hop as k_hop
from .tiles import tile_context as tile_context
from .tiles import tissue_tiles as tissue_tiles
