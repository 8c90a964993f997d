"""The registry of unidiff.tasks: each name is imported when it is first used."""

from unidiff.run.execute import TrainingTask as TrainingTask
from unidiff.run.task import Task as Task
from unidiff.tasks.autoencoding import AutoencoderTask as AutoencoderTask
from unidiff.tasks.cascade import CascadeSampling as CascadeSampling
from unidiff.tasks.classification import ClassifierTask as ClassifierTask
from unidiff.tasks.comparison import SolverComparison as SolverComparison
from unidiff.tasks.contrastive import ContrastiveTask as ContrastiveTask
from unidiff.tasks.evaluation import EvaluationTask as EvaluationTask
from unidiff.tasks.generation import Generation as Generation
from unidiff.tasks.heat_flow import HeatFlow as HeatFlow
