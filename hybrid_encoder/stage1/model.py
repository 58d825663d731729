"""The model that stage 1 trains, as one module: a batch of images and ordered points in, the loss out.

docs/METHOD.md, section 3.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..config import HybridEncoderConfig
from ..model.closeness import distance_score
from ..model.encoder import HybridEncoder
from .dataset import Stage1Batch
from .losses import ordinal_contrastive_loss, ranking_loss
from .metrics import pairwise_accuracy
from .options import PretrainOptions
from .patch_features import patch_features, patch_logits


def stage1_config(config: HybridEncoderConfig, bidirectional: bool = False) -> HybridEncoderConfig:
    """The config of stage 1's encoder: without alignment and pyramid, which stage 1 does not train; DINO and the text
    tower are frozen; and `ranking` is set.

    A DINO of random numbers has nothing to preserve: as many of its blocks train as the config says.
    """
    blocks = config.train_dino_blocks if config.dino_weights == "random" else 0
    ranking = "both_ways" if bidirectional else "one_way"
    config = config.replace(alignment="none", pyramid=False, train_dino_blocks=blocks)
    return config.replace(ranking=ranking, rank_order="near_to_far")


class Stage1Model(nn.Module):
    """The encoder's fused levels, read at patches and compared with the seven prompts."""

    def __init__(self, encoder: HybridEncoder, options: PretrainOptions) -> None:
        super().__init__()
        self.encoder = encoder
        self.options = options

    def logits(self, batch: Stage1Batch) -> tuple[Tensor, Tensor]:
        """Unit features (N, 7, D) of all patches, and their logits (N, 7, 7) over the prompts."""
        # Text comes first, because torch.compile breaks its graph where cached text is looked up.
        text = self._text()
        fused = self.encoder.forward_features(batch.images).fused
        size = (batch.images.shape[-2], batch.images.shape[-1])
        features = patch_features(fused, batch.points, batch.image_index, size, text.shape[1], self.options.region)
        return features, patch_logits(features, text)

    def forward(self, batch: Stage1Batch) -> dict[str, Tensor]:
        """Scalars "loss", "ranking", "contrastive", "accuracy"."""
        features, logits = self.logits(batch)
        count = len(batch.images) if self.options.ranking_mean == "images" else len(logits)
        ranking = ranking_loss(logits, self.options.bidirectional, self.options.margin, count)
        contrastive = ordinal_contrastive_loss(features)
        return {
            "loss": ranking + self.options.contrastive_weight * contrastive,
            "ranking": ranking,
            "contrastive": contrastive,
            "accuracy": self._accuracy(logits),
        }

    def _text(self) -> Tensor:
        """(7, D) text features of the seven words, as `--word_norm` says."""
        text = self.encoder.language.word_features()
        return text / text.norm() if self.options.word_norm == "matrix" else text

    def _accuracy(self, logits: Tensor) -> Tensor:
        """Pairwise ranking accuracy; chance where a batch has no sequence."""
        if not len(logits):
            return logits.new_tensor(0.5)
        return pairwise_accuracy(distance_score(logits, self.options.bidirectional)).mean()
