from . import counts as counts
from . import embeddings as embeddings
from . import slide_to_data as slide_to_data
from . import tissue_data as tissue_data
from .embeddings import write_embeddings as write_embeddings
from .slide_to_data import to_data as to_data
from .tissue_data import TissueData as TissueData
from .tissue_data import batched as batched
