from . import expression as expression
from . import gene_pairs as gene_pairs
from . import label as label
from . import token_expression as token_expression
from .expression import ExpressionHead as ExpressionHead
from .gene_pairs import GenePairHead as GenePairHead
from .label import LabelHead as LabelHead
from .token_expression import TokenExpressionHead as TokenExpressionHead
