"""Statistics over batches of training data: precise BN, and the noise of a batch."""

from normplug.population.data import (
    batches_of_all_ranks,
    population_loader,
    restarted,
    sampler_of,
)
from normplug.population.decay_estimate import CURVATURES, DecayEstimate
from normplug.population.estimate import (
    PopulationError,
    buffers_kept,
    estimate_population,
    live_norms,
    modes_kept,
)
from normplug.population.sample_grads import SampleGradients
from normplug.population.totals import running_statistics

__all__ = [
    'CURVATURES',
    'DecayEstimate',
    'PopulationError',
    'SampleGradients',
    'batches_of_all_ranks',
    'buffers_kept',
    'estimate_population',
    'live_norms',
    'modes_kept',
    'population_loader',
    'restarted',
    'running_statistics',
    'sampler_of',
]
