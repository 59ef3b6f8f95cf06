"""The part of a norm whose channels are taken in groups."""

__all__ = ['Grouped']


class Grouped:
    """A part of a subclass of :class:`normplug.norms.base.BaseNorm`, named before it."""

    def _divisor(self, key: str, value: int) -> int:
        """The value of an argument that divides the channels; C if it is more."""
        self._require(
            type(value) is int and value > 0, f'{key} must be a positive integer, got {value!r}'
        )
        channels = self.num_features
        value = min(value, channels)
        fitting = [str(d) for d in range(value, 0, -1) if channels % d == 0]
        self._require(
            channels % value == 0,
            f'{key}={value} does not divide the {channels} channels: choose a number that divides '
            f'the channels of every layer that the norm_cfg is for (here {", ".join(fitting)}), or '
            'give this layer another norm by NormPlacement',
        )
        return value
