"""Random states: saved, loaded, restored."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from normplug.random_state import get_random_state, seed_of, set_random_state


def draw():
    """From every generator; gauss of python and numpy keep a second number for the next call."""
    return [
        random.random(),
        random.gauss(0, 1),
        np.random.rand(),
        np.random.normal(),
        torch.rand(()).item(),
        torch.randn(()).item(),
    ]


def test_the_seed_of_a_rank_fits_every_generator():
    """mmengine draws seeds below 2^31."""
    seeds = {seed_of(2**31 - seed, rank) for seed in range(1, 9) for rank in range(8)}
    assert len(seeds) == 64
    for seed in seeds:
        np.random.seed(seed)
        torch.manual_seed(seed)
    assert seed_of(7, 3) == 7066


def test_the_same_numbers_follow():
    draw()
    state = get_random_state()
    expected = [draw() for _ in range(700)]  # beyond the 624 words of a state
    set_random_state(state)
    assert [draw() for _ in range(700)] == expected


def test_loads_without_any_allow_list(tmp_path):
    draw()
    torch.save([get_random_state()], tmp_path / 'state.pth')
    script = 'import sys, torch; print(len(torch.load(sys.argv[1], weights_only=True)))'
    command = [sys.executable, '-c', script, str(tmp_path / 'state.pth')]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == '1\n'
    state = torch.load(tmp_path / 'state.pth', weights_only=True)[0]
    expected = draw()
    set_random_state(state)
    assert draw() == expected


def test_states_of_other_devices_are_refused():
    before = get_random_state()
    state = {**before, 'cuda': [torch.zeros(16, dtype=torch.uint8)] * 99}
    with pytest.raises(ValueError, match='random states of 99 CUDA devices'):
        set_random_state(state)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_cuda_devices():
    state = get_random_state()
    expected = torch.rand(4, device='cuda')
    set_random_state(state)
    assert torch.equal(torch.rand(4, device='cuda'), expected)
    assert get_random_state(cuda=False)['cuda'] == []
