"""The registry of unidiff.evaluation: each name is imported when it is first used."""

from unidiff.evaluation.conditional import mean_prediction as mean_prediction
from unidiff.evaluation.distances import energy_distance as energy_distance
from unidiff.evaluation.distances import sliced_wasserstein as sliced_wasserstein
from unidiff.evaluation.features import Discriminants as Discriminants
from unidiff.evaluation.reference import reference_flow as reference_flow
