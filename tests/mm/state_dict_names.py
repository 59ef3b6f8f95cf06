"""The golden list of names, shapes and dtypes in every normalizer's state dict.

Run as a program, it writes the list anew.
"""

import json
from pathlib import Path

from tests.cases import CASES

CHANNELS = 8
GOLDEN = Path(__file__).parents[1] / 'data' / 'state_dict_names.json'
REGENERATE = 'python -m tests.mm.state_dict_names'


def described(layer) -> dict[str, str]:
    """Name → dtype and shape."""
    return {
        name: f'{str(tensor.dtype).removeprefix("torch.")} {tuple(tensor.shape)}'
        for name, tensor in layer.state_dict().items()
    }


def current() -> dict[str, dict[str, str]]:
    """What the golden file should hold, by case."""
    return {case.name: described(case.build(CHANNELS)) for case in CASES}


if __name__ == '__main__':
    GOLDEN.write_text(json.dumps(current(), indent=2) + '\n')
