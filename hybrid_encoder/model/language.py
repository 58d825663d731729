"""Language about distance: prompts, learnable depth tokens, their text features, and pixel-wise alignment with them.

METHOD, section 2. The text tower is frozen; gradients pass through it to the depth tokens only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import cast

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.graph import increment_version
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from ..config import DEPTH_WORDS, HybridEncoderConfig
from ..errors import UserError

LOGIT_SCALE = 100.0
"""CLIP's trained temperature, fixed."""


class Language(nn.Module):
    """The text tower of a CLIP model, cut down to the prompts of one config.

    Only the embeddings of the prompts' own words are kept (a dozen of CLIP's 49,408), the context is cut behind the
    last end token, and the words that all prompts begin with are run once: attention is causal and a sentence is read
    out at its end token, so the result is the same.

    Attributes:
        tokens: (K, width) parameter, the learnable depth tokens.
        slot: position of the depth word or token in a prompt.
        width: length D of a text feature.
    """

    tokens: Tensor
    embedding: Tensor
    position: Tensor
    projection: Tensor
    word_ids: Tensor
    token_ids: Tensor

    def __init__(self, clip: CLIP, config: HybridEncoderConfig) -> None:
        super().__init__()
        if clip.text_pool_type not in ("argmax", "eos"):
            raise UserError(
                f"{config.clip}: its text tower is not read out at the end token (pool {clip.text_pool_type!r})"
            )
        self.text_norm = config.text_norm
        words, token, self.slot, self._suffix = _tokenize(config.prompt, clip.context_length)
        vocabulary = torch.cat([words.flatten(), token.flatten()]).unique()
        # End tokens have the highest id, and so they have after this renumbering.
        self.register_buffer("word_ids", torch.searchsorted(vocabulary, words), persistent=False)
        self.register_buffer("token_ids", torch.searchsorted(vocabulary, token), persistent=False)

        # Rows of the full vocabulary, by which a checkpoint with all 49,408 is read.
        self.vocabulary = vocabulary.tolist()
        context = max(words.shape[1], token.shape[1])
        self.embedding = nn.Parameter(clip.token_embedding.weight[vocabulary].detach().clone())
        self.position = nn.Parameter(clip.positional_embedding[:context].detach().clone())
        self.transformer = clip.transformer
        self.ln_final = clip.ln_final
        self.projection = nn.Parameter(cast(Tensor, clip.text_projection).detach().clone())
        self.requires_grad_(False)

        if config.token_init == "words":
            tokens = self._interpolated_words(config.num_tokens)
        else:
            tokens = 0.02 * torch.randn(config.num_tokens, self.embedding.shape[1])
        self.tokens = nn.Parameter(tokens, requires_grad=config.train_tokens)
        self.width = int(self.projection.shape[1])
        self._cache: dict[str, _Kept] = {}
        _watch_fused_steps()
        self.register_load_state_dict_post_hook(_forget)

    def train(self, mode: bool = True) -> Language:
        """As of any module; what is cached is forgotten where the mode changes."""
        if mode != self.training:
            self._cache.clear()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Language:
        self._cache.clear()  # to another device or precision
        return super()._apply(fn, recurse)

    def word_features(self) -> Tensor:
        """The seven prompts of stage 1, near to far: (7, D), each of length 1. Constant, hence cached."""
        return self._constant("words", self._word_features)

    def text_features(self) -> Tensor:
        """The K depth tokens' prompts: (K, D), each of length 1 (and divided by the norm of the whole under "matrix").

        Computed anew where gradients are wanted; otherwise cached until a token or the text tower changes, which is
        seen by the versions of its parameters. Writing through `.data` leaves those as they were: switch between
        `train()` and `eval()` after it. `torch.export` (not strict) takes what is cached as a constant: run the model
        once before, and both under `torch.no_grad()`.
        """
        if torch.is_grad_enabled() and self.tokens.requires_grad:
            return self._token_features()
        return self._constant("tokens", self._token_features)

    def _word_features(self) -> Tensor:
        return F.normalize(self._read(self.embedding[self.word_ids[:, self.slot :]], self.word_ids), dim=-1)

    def _token_features(self) -> Tensor:
        behind = self.embedding[self.token_ids[:, self.slot + 1 :]].expand(len(self.tokens), -1, -1)
        own = torch.cat([self.tokens[:, None].to(behind.dtype), behind], dim=1)
        features = F.normalize(self._read(own, self.token_ids), dim=-1)
        return features / features.norm() if self.text_norm == "matrix" else features

    def _read(self, own: Tensor, ids: Tensor) -> Tensor:
        """Reads sentences out at their end tokens.

        All sentences begin alike ("This patch appears to be"), and attention is causal: the beginning is run once, and
        every sentence's own words look back at its keys and values.

        Args:
            own: (N, S, width) embedded words from the slot on.
            ids: (N or 1, slot + S) the sentences' ids.

        Returns:
            (N, D), not normalised.
        """
        with torch.autocast(own.device.type, enabled=False):
            start = self.embedding[ids[:1, : self.slot]] + self.position[: self.slot]
            own = own + self.position[self.slot : self.slot + own.shape[1]]
            for block in self.transformer.resblocks:
                start, own = _causal_block(block, start, own)
            ends = ids[:, self.slot :].argmax(dim=-1).expand(len(own))
            last = own[torch.arange(len(own), device=own.device), ends]
            return cast(Tensor, self.ln_final(last) @ self.projection)

    def _constant(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """The cached value, recomputed if any parameter was written to, replaced or moved since."""
        kept = self._cache.get(name)
        if isinstance(self.tokens, FakeTensor):  # in torch.export, where parameters have no addresses
            return kept.value if kept is not None else compute()
        parameters = list(self.parameters())
        stamp = [(p.data_ptr(), -1 if p.is_inference() else p._version) for p in parameters]
        if kept is None or kept.stamp != stamp:
            # Leaving inference mode: a tensor made inside it could not serve a later training step.
            with torch.inference_mode(False), torch.no_grad():
                kept = _Kept(parameters, stamp, compute())
            self._cache[name] = kept
        return kept.value

    def reset_tokens(self) -> None:
        """The tokens interpolated between the seven words anew, after the words' embeddings have changed."""
        with torch.no_grad():
            self.tokens.copy_(self._interpolated_words(len(self.tokens)))

    def _interpolated_words(self, count: int) -> Tensor:
        """(K, width): the seven words' embeddings (mean over a word's own tokens), linearly interpolated near to
        far."""
        inside = [row[self.slot : int(row.argmax()) - self._suffix] for row in self.word_ids]
        words = torch.stack([self.embedding[row].mean(0) for row in inside]).detach()
        return F.interpolate(words.T[None], size=count, mode="linear", align_corners=True)[0].T.contiguous()


@dataclass(frozen=True)
class _Kept:
    """A value and what it was computed from; the parameters are held so that no later one takes their addresses."""

    parameters: list[nn.Parameter]
    stamp: list[tuple[int, int]]
    value: Tensor


def _forget(language: nn.Module, _: object) -> None:
    cast(Language, language)._cache.clear()


def _note_fused_step(optimizer: Optimizer, *_: object) -> None:
    """PyTorch's fused optimisers write to parameters and leave their version as it was, so cached text would go
    stale."""
    for group in optimizer.param_groups:
        if group.get("fused"):
            for parameter in group["params"]:
                if parameter.grad is not None:
                    increment_version(parameter)


@cache
def _watch_fused_steps() -> None:
    """Lets every optimiser of this process say so from now on."""
    register_optimizer_step_post_hook(_note_fused_step)


def _causal_block(block: nn.Module, start: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """One block of open_clip's text transformer for sentences with a common start.

    Args:
        block: its `ResidualAttentionBlock`.
        start: (1, P, width) states of the common start.
        own: (N, S, width) states of every sentence's own words.

    Returns:
        Both after the block.
    """
    attention = cast(nn.MultiheadAttention, block.attn)
    length = own.shape[1]

    def heads(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, L, width) -> queries, keys, values (B, heads, L, width / heads)."""
        joined = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)  # type: ignore[operator]
        parts = joined.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return parts[0], parts[1], parts[2]

    def finish(x: Tensor, attended: Tensor) -> Tensor:
        x = x + block.ls_1(attention.out_proj(attended.transpose(1, 2).flatten(2)))  # type: ignore[operator]
        return x + block.ls_2(block.mlp(block.ln_2(x)))  # type: ignore[operator]

    query, key, value = heads(start)
    own_query, own_key, own_value = heads(own)
    attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    count = own_key.shape[0]
    keys = torch.cat([key.expand(count, -1, -1, -1), own_key], dim=2)
    values = torch.cat([value.expand(count, -1, -1, -1), own_value], dim=2)
    seen = torch.ones(length, keys.shape[2], dtype=torch.bool, device=own.device).tril(keys.shape[2] - length)
    own_attended = F.scaled_dot_product_attention(own_query, keys, values, attn_mask=seen)
    return finish(start, attended), finish(own, own_attended)


def align(level: Tensor, text: Tensor) -> Tensor:
    """Pixel-wise alignment: logits_k = 100 <f / |f|, t_k> at every position (METHOD, section 2).

    Where the level's channels differ from the text width, the channel axis is resized (nearest) to the width; since
    that repeats or drops channels, it is folded into the text instead.

    Args:
        level: (B, C, h, w) fused features.
        text: (K, D) text features.

    Returns:
        (B, K, h, w), in the level's precision; lengths and the division are float32 even where the level is bfloat16.
    """
    with torch.autocast(level.device.type, enabled=False):
        channels, width = level.shape[1], text.shape[1]
        squares, text = level.float().square(), text.float()
        if channels == width:
            square = squares.sum(1, keepdim=True)
        else:
            source = nearest_index(channels, width, level.device)
            text = text.new_zeros(len(text), channels).index_add(1, source, text)
            repeats = torch.zeros(channels, device=level.device).index_add(
                0, source, torch.ones_like(source, dtype=torch.float32)
            )
            square = (squares * repeats[:, None, None]).sum(1, keepdim=True)
        products = F.conv2d(level, text[:, :, None, None].to(level.dtype))
        return (products * (LOGIT_SCALE * square.clamp_min(1e-24).rsqrt())).to(level.dtype)


def nearest_index(given: int, wanted: int, device: torch.device) -> Tensor:
    """(wanted,) the channels that `F.interpolate(mode="nearest")` takes when it resizes `given` channels to
    `wanted`."""
    index = torch.arange(given, dtype=torch.float32, device=device)
    return F.interpolate(index[None, None], size=wanted, mode="nearest")[0, 0].long()


def _tokenize(prompt: str, context: int) -> tuple[Tensor, Tensor, int, int]:
    """CLIP's byte-pair tokens of a prompt with the seven words, and with one token in their place.

    Args:
        prompt: with one {depth}.
        context: most tokens of a sentence, the start and end tokens among them.

    Returns:
        ids (7, L), cut behind the last sentence's end token; ids (1, L'); the position of the word; how many tokens
        come between the word and the end token.

    Raises:
        UserError: the word merges with its neighbours into other tokens, or a sentence is too long.
    """
    tokenizer = open_clip.SimpleTokenizer(context_length=context)
    before, behind = (tokenizer.encode(part) for part in prompt.format(depth="\0").split("\0"))
    ids = []
    for word in (*DEPTH_WORDS, "x"):
        own = tokenizer.encode(word)
        sentence = prompt.format(depth=word)
        if tokenizer.encode(sentence) != before + own + behind:
            raise UserError(f"prompt={prompt!r}: {{depth}} has to stand on its own, between spaces")
        if len(before + own + behind) + 2 > context:
            raise UserError(f"prompt={prompt!r} is longer than CLIP's {context} tokens with {word!r} in it")
        ids.append(tokenizer([sentence])[0, : len(before + own + behind) + 2])
    words = nn.utils.rnn.pad_sequence(ids[:-1], batch_first=True)
    return words, ids[-1][None], 1 + len(before), len(behind)
