from . import (
    cohort_report as cohort_report,
)
from . import (
    compose as compose,
)
from . import (
    description as description,
)
from . import (
    gene_values as gene_values,
)
from . import (
    generation as generation,
)
from . import (
    hits as hits,
)
from . import (
    niches as niches,
)
from . import (
    page as page,
)
from . import (
    scatter as scatter,
)
from . import (
    scores as scores,
)
from . import (
    sections as sections,
)
from . import slide_report as slide_report
from . import (
    style as style,
)
from .cohort_report import report_cohort as report_cohort
from .compose import slide_page as slide_page
from .generation import Generation as Generation
from .generation import as_generations as as_generations
from .hits import hit_gallery as hit_gallery
from .page import Report as Report
from .scatter import cell_scatter as cell_scatter
from .slide_report import SlideReport as SlideReport
from .slide_report import report_slide as report_slide
