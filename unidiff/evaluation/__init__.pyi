"""The registry of unidiff.evaluation: each name is imported when it is first used."""

from unidiff.evaluation.class_measures import ClassHistogram as ClassHistogram
from unidiff.evaluation.class_measures import class_histogram as class_histogram
from unidiff.evaluation.class_measures import classifier_score as classifier_score
from unidiff.evaluation.conditional import mean_prediction as mean_prediction
from unidiff.evaluation.distances import energy_distance as energy_distance
from unidiff.evaluation.distances import sliced_wasserstein as sliced_wasserstein
from unidiff.evaluation.features import Discriminants as Discriminants
from unidiff.evaluation.frechet import frechet_bias as frechet_bias
from unidiff.evaluation.frechet import frechet_distance as frechet_distance
from unidiff.evaluation.frechet import gaussian_frechet as gaussian_frechet
from unidiff.evaluation.image_measures import sharpness as sharpness
from unidiff.evaluation.kernel import kernel_distance as kernel_distance
from unidiff.evaluation.manifold import density_coverage as density_coverage
from unidiff.evaluation.manifold import precision_recall as precision_recall
from unidiff.evaluation.memorization import memorization_ratio as memorization_ratio
from unidiff.evaluation.network import FeatureNetwork as FeatureNetwork
from unidiff.evaluation.network import load_features as load_features
from unidiff.evaluation.real import RealData as RealData
from unidiff.evaluation.real import real_data as real_data
from unidiff.evaluation.reference import reference_flow as reference_flow
from unidiff.evaluation.scores import Evaluation as Evaluation
from unidiff.evaluation.scores import Scores as Scores
