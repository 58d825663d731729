"""Language about distance: prompts, learnable depth tokens, their text features, and pixel-wise alignment with them.

METHOD, section 2. The text tower is frozen; gradients pass through it to the depth tokens only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor, nn

from .config import DEPTH_WORDS, HybridEncoderConfig
from .errors import UserError

LOGIT_SCALE = 100.0
"""CLIP's trained temperature, fixed."""


class Language(nn.Module):
    """The text tower of a CLIP model, cut down to the prompts of one config.

    Only the embeddings of the prompts' own words are kept (a dozen of CLIP's 49,408), and the context is cut behind the
    last end token: attention is causal and a sentence is read out at its end token, so the result is the same.

    Attributes:
        tokens: (K, width) parameter, the learnable depth tokens.
        width: length D of a text feature.
    """

    tokens: Tensor
    causal: Tensor
    word_ids: Tensor
    token_ids: Tensor

    def __init__(self, clip: CLIP, config: HybridEncoderConfig) -> None:
        super().__init__()
        if clip.text_pool_type not in ("argmax", "eos"):
            raise UserError(
                f"{config.clip}: its text tower is not read out at the end token (pool {clip.text_pool_type!r})"
            )
        self.text_norm = config.text_norm
        word_ids = _tokenize([config.prompt.format(depth=word) for word in DEPTH_WORDS], clip.context_length)
        token_ids = _tokenize([config.prompt.format(depth="x")], clip.context_length)
        vocabulary = torch.cat([word_ids.flatten(), token_ids.flatten()]).unique()
        # End tokens have the highest id, and so they have after this renumbering.
        self.register_buffer("word_ids", torch.searchsorted(vocabulary, word_ids), persistent=False)
        self.register_buffer("token_ids", torch.searchsorted(vocabulary, token_ids), persistent=False)
        self.slot = int(token_ids[0].tolist().index(_tokenize(["x"], clip.context_length)[0, 1]))

        # Rows of the full vocabulary, by which a checkpoint with all 49,408 is read.
        self.vocabulary = vocabulary.tolist()
        context = max(word_ids.shape[1], token_ids.shape[1])
        self.embedding = nn.Parameter(clip.token_embedding.weight[vocabulary].detach().clone())
        self.position = nn.Parameter(clip.positional_embedding[:context].detach().clone())
        self.transformer = clip.transformer
        self.ln_final = clip.ln_final
        self.projection = nn.Parameter(cast(Tensor, clip.text_projection).detach().clone())
        self.register_buffer("causal", clip.attn_mask[:context, :context].clone(), persistent=False)
        self.requires_grad_(False)

        if config.token_init == "words":
            tokens = self._interpolated_words(config.num_tokens)
        else:
            tokens = 0.02 * torch.randn(config.num_tokens, self.embedding.shape[1])
        self.tokens = nn.Parameter(tokens, requires_grad=config.train_tokens)
        self.width = int(self.projection.shape[1])
        self._cache: dict[str, tuple[tuple[object, ...], Tensor]] = {}

    def word_features(self) -> Tensor:
        """The seven prompts of stage 1, near to far: (7, D), each of length 1. Constant, hence cached."""
        return self._constant(
            "words", lambda: F.normalize(self._encode(self.embedding[self.word_ids], self.word_ids), dim=-1)
        )

    def text_features(self) -> Tensor:
        """The K depth tokens' prompts: (K, D), each of length 1 (and divided by the norm of the whole under "matrix").

        Computed anew where gradients are wanted; otherwise cached until a token or the text tower changes.
        """
        if torch.is_grad_enabled() and self.tokens.requires_grad:
            return self._token_features()
        return self._constant("tokens", self._token_features)

    def _token_features(self) -> Tensor:
        count = self.tokens.shape[0]
        prompts = self.embedding[self.token_ids].expand(count, -1, -1)
        before, after = prompts[:, : self.slot], prompts[:, self.slot + 1 :]
        prompts = torch.cat([before, self.tokens[:, None].to(prompts.dtype), after], dim=1)
        features = F.normalize(self._encode(prompts, self.token_ids.expand(count, -1)), dim=-1)
        return features / features.norm() if self.text_norm == "matrix" else features

    def _encode(self, prompts: Tensor, ids: Tensor) -> Tensor:
        """(N, L, width) embedded prompts, (N, L) ids -> (N, D), not normalised."""
        length = prompts.shape[1]
        with torch.autocast(prompts.device.type, enabled=False):
            x = self.transformer(prompts + self.position[:length], attn_mask=self.causal[:length, :length])
            ends = ids.argmax(dim=-1)
            return cast(Tensor, self.ln_final(x[torch.arange(len(x), device=x.device), ends]) @ self.projection)

    def _constant(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """The cached value, recomputed if any parameter was written to, replaced or moved since."""
        stamp = tuple((p.data_ptr(), p._version) for p in self.parameters())
        kept = self._cache.get(name)
        if kept is None or kept[0] != stamp:
            # Leaving inference mode: a tensor made inside it could not serve a later training step.
            with torch.inference_mode(False), torch.no_grad():
                kept = (stamp, compute())
            self._cache[name] = kept
        return kept[1]

    def _interpolated_words(self, count: int) -> Tensor:
        """(K, width): the seven words' embeddings (mean over a word's own tokens), linearly interpolated near to
        far."""
        inside = [row[self.slot : int(row.argmax())] for row in self.word_ids]
        words = torch.stack([self.embedding[row].mean(0) for row in inside]).detach()
        return F.interpolate(words.T[None], size=count, mode="linear", align_corners=True)[0].T.contiguous()


def align(level: Tensor, text: Tensor) -> Tensor:
    """Pixel-wise alignment: logits_k = 100 <f / |f|, t_k> at every position (METHOD, section 2).

    Where the level's channels differ from the text width, the channel axis is resized (nearest) to the width; since
    that repeats or drops channels, it is folded into the text instead.

    Args:
        level: (B, C, h, w) fused features.
        text: (K, D) text features.

    Returns:
        (B, K, h, w) float32.
    """
    with torch.autocast(level.device.type, enabled=False):
        level, text = level.float(), text.float()
        channels, width = level.shape[1], text.shape[1]
        if channels == width:
            norm = level.norm(dim=1, keepdim=True)
        else:
            source = nearest_index(channels, width, level.device)
            text = text.new_zeros(len(text), channels).index_add(1, source, text)
            repeats = torch.zeros(channels, device=level.device).index_add(
                0, source, torch.ones_like(source, dtype=torch.float32)
            )
            norm = (level.square() * repeats[:, None, None]).sum(1, keepdim=True).sqrt()
        return LOGIT_SCALE * F.conv2d(level, text[:, :, None, None]) / norm.clamp_min(1e-12)


def nearest_index(given: int, wanted: int, device: torch.device) -> Tensor:
    """(wanted,) the channels that `F.interpolate(mode="nearest")` takes when it resizes `given` channels to
    `wanted`."""
    index = torch.arange(given, dtype=torch.float32, device=device)
    return F.interpolate(index[None, None], size=wanted, mode="nearest")[0, 0].long()


def _tokenize(sentences: list[str], context: int) -> Tensor:
    """(N, L) ids of CLIP's byte-pair tokens, cut behind the last sentence's end token."""
    ids = open_clip.SimpleTokenizer(context_length=context)(sentences)
    return ids[:, : int(ids.argmax(-1).max()) + 1].contiguous()
