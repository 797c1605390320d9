from . import (
    cell as cell,
)
from . import (
    condition as condition,
)
from . import (
    config as config,
)
from . import (
    cross_attention as cross_attention,
)
from . import (
    encoding as encoding,
)
from . import (
    fusion as fusion,
)
from . import (
    gene_sampling as gene_sampling,
)
from . import (
    gene_tokens as gene_tokens,
)
from . import (
    genes as genes,
)
from . import (
    genomic_position as genomic_position,
)
from . import (
    gradient_reversal as gradient_reversal,
)
from . import (
    hub as hub,
)
from . import (
    image as image,
)
from . import (
    image_statistics as image_statistics,
)
from . import (
    masked_image as masked_image,
)
from . import (
    merge as merge,
)
from . import (
    mode as mode,
)
from . import (
    morphology as morphology,
)
from . import (
    patches as patches,
)
from . import (
    pool as pool,
)
from . import (
    token_cell as token_cell,
)
from . import (
    token_fusion as token_fusion,
)
from . import (
    token_transformer as token_transformer,
)
from . import (
    top_down as top_down,
)
from . import (
    transformer as transformer,
)
from . import (
    unet as unet,
)
from .cell import CellEncoder as CellEncoder
from .condition import Condition as Condition
from .condition import TransitionConditioner as TransitionConditioner
from .config import Configurable as Configurable
from .cross_attention import CrossAttention as CrossAttention
from .encoding import EdgeEncoding as EdgeEncoding
from .encoding import PlaceEncoding as PlaceEncoding
from .fusion import (
    ConcatFusion as ConcatFusion,
)
from .fusion import (
    CrossModalFusion as CrossModalFusion,
)
from .fusion import (
    GateFusion as GateFusion,
)
from .gene_sampling import SampledGenes as SampledGenes
from .gene_sampling import sample_genes as sample_genes
from .gene_tokens import GeneTokenEncoder as GeneTokenEncoder
from .gene_tokens import GeneTokens as GeneTokens
from .genes import GeneEncoder as GeneEncoder
from .genomic_position import GenomicPosition as GenomicPosition
from .gradient_reversal import (
    GradientReversal as GradientReversal,
)
from .gradient_reversal import (
    reverse_gradient as reverse_gradient,
)
from .hub import PretrainedModel as PretrainedModel
from .image import ImageEncoder as ImageEncoder
from .image_statistics import ImageStatistics as ImageStatistics
from .image_statistics import color_texture as color_texture
from .masked_image import (
    ImageTokens as ImageTokens,
)
from .masked_image import (
    MaskedImageDecoder as MaskedImageDecoder,
)
from .masked_image import (
    MaskedImageEncoder as MaskedImageEncoder,
)
from .merge import (
    TokenMerge as TokenMerge,
)
from .merge import (
    TokenMergingProcessor as TokenMergingProcessor,
)
from .merge import (
    match_tokens as match_tokens,
)
from .merge import (
    set_token_merging as set_token_merging,
)
from .mode import evaluating as evaluating
from .morphology import MorphologyProfile as MorphologyProfile
from .pool import (
    AttentionPool as AttentionPool,
)
from .pool import (
    NichePool as NichePool,
)
from .pool import (
    PyGPool as PyGPool,
)
from .pool import (
    TissuePool as TissuePool,
)
from .token_cell import CellStreams as CellStreams
from .token_cell import TokenCellEncoder as TokenCellEncoder
from .token_fusion import FusedTokens as FusedTokens
from .token_fusion import TokenFusion as TokenFusion
from .token_transformer import TokenTransformer as TokenTransformer
from .top_down import TopDown as TopDown
from .transformer import (
    GraphTransformer as GraphTransformer,
)
from .transformer import (
    GraphTransformerLayer as GraphTransformerLayer,
)
from .unet import VelocityUNet as VelocityUNet
