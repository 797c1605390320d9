from . import (
    canvas as canvas,
)
from . import (
    colors as colors,
)
from . import (
    curves as curves,
)
from . import (
    domains as domains,
)
from . import (
    galleries as galleries,
)
from . import (
    groups as groups,
)
from . import (
    levels as levels,
)
from . import (
    maps as maps,
)
from . import (
    raster as raster,
)
from .attention import attention_maps as attention_maps
from .attention import cell_attention as cell_attention
from .chord import chord as chord
from .colors import PALETTE as PALETTE
from .colors import category_colors as category_colors
from .curves import (
    protocol_bars as protocol_bars,
)
from .curves import (
    score_bars as score_bars,
)
from .curves import (
    training_curve as training_curve,
)
from .curves import (
    training_curves as training_curves,
)
from .domains import domain_curve as domain_curve
from .galleries import gallery as gallery
from .galleries import transition_gallery as transition_gallery
from .gene_pairs import pairs_by_type as pairs_by_type
from .gene_pairs import pairs_in_cells as pairs_in_cells
from .groups import (
    amounts_by_group as amounts_by_group,
)
from .groups import (
    composition_bars as composition_bars,
)
from .groups import (
    dot_plot as dot_plot,
)
from .groups import (
    enrichment_map as enrichment_map,
)
from .levels import hierarchy as hierarchy
from .maps import spatial as spatial
from .raster import raster_map as raster_map
from .raster import rasterize as rasterize
from .volcano import volcano as volcano
