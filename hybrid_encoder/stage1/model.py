"""What stage 1 trains, as one module: a batch of images and ordered points in, the loss out.

docs/METHOD.md, section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import HybridEncoderConfig
from ..model.encoder import HybridEncoder
from .dataset import Stage1Batch
from .losses import ordinal_contrastive_loss, ranking_loss
from .metrics import distance_score, pairwise_accuracy
from .options import PretrainOptions
from .patch_features import patch_features, patch_logits


def stage1_config(config: HybridEncoderConfig) -> HybridEncoderConfig:
    """What stage 1 builds: no alignment and no pyramid, which it does not train; DINO and the text tower are frozen.

    A DINO that starts from random numbers has nothing to keep: as many of its blocks train as the config says.
    """
    blocks = config.train_dino_blocks if config.dino_weights == "random" else 0
    return config.replace(alignment="none", pyramid=False, train_dino_blocks=blocks)


class Stage1Model(nn.Module):
    """The encoder's fused levels, read at patches and compared with the seven prompts."""

    def __init__(self, encoder: HybridEncoder, options: PretrainOptions) -> None:
        super().__init__()
        self.encoder = encoder
        self.options = options

    def logits(self, batch: Stage1Batch) -> tuple[Tensor, Tensor]:
        """Unit features (N, 7, D) of all patches, and their logits (N, 7, 7) over the prompts."""
        # First, since torch.compile breaks its graph where cached text is looked up.
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

    def score_maps(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, h, w) distance score of every cell."""
        fused = self.encoder.forward_features(images).fused
        batch, _, rows, columns = fused[0].shape
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        cells = torch.stack([x, y], dim=-1).view(1, -1, 2).expand(batch, -1, -1).to(images.device).float() + 0.5
        text = self._text()
        owner = torch.arange(batch, device=images.device)
        features = patch_features(fused, cells, owner, (rows, columns), text.shape[1])
        return distance_score(patch_logits(features, text), self.options.bidirectional).view(batch, rows, columns)
