from . import (
    baselines as baselines,
)
from . import (
    biomarker as biomarker,
)
from . import (
    cluster_sweep as cluster_sweep,
)
from . import (
    clustering as clustering,
)
from . import (
    cross_modal as cross_modal,
)
from . import (
    deconvolution as deconvolution,
)
from . import (
    entries as entries,
)
from . import (
    extractors as extractors,
)
from . import (
    generation as generation,
)
from . import (
    genes as genes,
)
from . import (
    image_features as image_features,
)
from . import (
    image_to_genes as image_to_genes,
)
from . import (
    imputation as imputation,
)
from . import (
    inputs as inputs,
)
from . import (
    mapping as mapping,
)
from . import (
    prediction as prediction,
)
from . import (
    probe as probe,
)
from . import (
    protocols as protocols,
)
from . import (
    transfer as transfer,
)
from . import (
    transfer_baselines as transfer_baselines,
)
from .baselines import (
    domain_baselines as domain_baselines,
)
from .baselines import (
    log_normalize as log_normalize,
)
from .baselines import (
    neighbor_mean as neighbor_mean,
)
from .baselines import (
    pca as pca,
)
from .biomarker import BagTraining as BagTraining
from .biomarker import score_biomarker as score_biomarker
from .cell_pairs import TypeAdjacency as TypeAdjacency
from .cell_pairs import calibration_error as calibration_error
from .cell_pairs import expression_cosine as expression_cosine
from .cell_pairs import score_cell_pairs as score_cell_pairs
from .cells import Cells as Cells
from .cluster_sweep import score_clusters as score_clusters
from .clustering import cluster_domains as cluster_domains
from .clustering import score_domains as score_domains
from .cross_modal import ridge_map as ridge_map
from .cross_modal import score_retrieval as score_retrieval
from .deconvolution import score_deconvolution as score_deconvolution
from .deconvolution import type_profiles as type_profiles
from .deconvolution import unmix as unmix
from .entries import EntrySplit as EntrySplit
from .entries import ridge_entries_on as ridge_entries_on
from .entries import score_entry_imputation as score_entry_imputation
from .extractors import extract_features as extract_features
from .few_shot import score_few_shot as score_few_shot
from .gene_pair_effects import (
    gene_pair_effects as gene_pair_effects,
)
from .generation import (
    frechet_distance as frechet_distance,
)
from .generation import (
    kernel_distance as kernel_distance,
)
from .generation import (
    score_generation as score_generation,
)
from .generation import (
    score_morphology as score_morphology,
)
from .graph_attention import GATClassifier as GATClassifier
from .image_features import (
    color_texture as color_texture,
)
from .image_features import (
    image_baselines as image_baselines,
)
from .image_features import (
    network_features as network_features,
)
from .image_to_genes import (
    LAYER_MARKERS as LAYER_MARKERS,
)
from .image_to_genes import (
    choose_genes as choose_genes,
)
from .image_to_genes import (
    score_image_to_genes as score_image_to_genes,
)
from .imputation import (
    ImputationSplit as ImputationSplit,
)
from .imputation import (
    imputation_splits as imputation_splits,
)
from .imputation import (
    ridge_on as ridge_on,
)
from .imputation import (
    score_imputation as score_imputation,
)
from .integration import score_integration as score_integration
from .ligand_receptors import KnownPairs as KnownPairs
from .ligand_receptors import known_gene_pairs as known_gene_pairs
from .mapping import map_expression as map_expression
from .neighborhoods import composition_divergence as composition_divergence
from .neighborhoods import jensen_shannon as jensen_shannon
from .neighborhoods import neighbor_composition as neighbor_composition
from .prediction import gene_pearson as gene_pearson
from .prediction import pearson_given as pearson_given
from .probe import random_folds as random_folds
from .probe import score_probe as score_probe
from .protocols import run_protocols as run_protocols
from .transfer import score_transfer as score_transfer
from .transfer import summarize_transfer as summarize_transfer
from .transfer_images import score_transfer_images as score_transfer_images
from .transfer_imputation import donor_splits as donor_splits
from .transfer_imputation import score_transfer_imputation as score_transfer_imputation
from .type_contacts import TypeContacts as TypeContacts
from .type_contacts import type_contacts as type_contacts
from .zero_shot_domains import score_zero_shot_domains as score_zero_shot_domains
