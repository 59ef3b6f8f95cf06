"""Precise BN: replace running statistics by those of n batches of training data."""

from normplug.population.data import batches_of_all_ranks, population_loader
from normplug.population.estimate import PopulationError, estimate_population, live_norms
from normplug.population.noise_estimate import CURVATURES, NoiseEstimate
from normplug.population.sample_grads import SampleGradients
from normplug.population.totals import running_statistics

__all__ = [
    'CURVATURES',
    'NoiseEstimate',
    'PopulationError',
    'SampleGradients',
    'batches_of_all_ranks',
    'estimate_population',
    'live_norms',
    'population_loader',
    'running_statistics',
]
