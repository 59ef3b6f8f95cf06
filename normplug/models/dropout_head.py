"""mmpretrain's linear head with dropout before it, as in the released SN and SSN networks."""

from mmpretrain.models.heads import LinearClsHead
from torch import Tensor, nn

__all__ = ['DropoutLinearClsHead']


class DropoutLinearClsHead(LinearClsHead):
    """``LinearClsHead`` with dropout of its input features in training.

    Args:
        dropout_rate: probability of dropping a feature.
        kwargs: arguments of ``LinearClsHead``.
    """

    def __init__(self, *args, dropout_rate: float, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.dropout = nn.Dropout(dropout_rate)

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Return the scores (N, classes) of the last stage's features."""
        return self.fc(self.dropout(self.pre_logits(feats)))
