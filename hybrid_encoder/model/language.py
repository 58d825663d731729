"""Language about distance: prompts, learnable depth tokens, their text features, and pixel-wise alignment with them.

docs/METHOD.md, section 2. The text tower is frozen unless the config says otherwise (`train_text`), and gradients pass
through it to the depth tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import DEPTH_WORDS, HybridEncoderConfig
from ..errors import UserError
from .precision import without_autocast
from .text_cache import TextCache
from .tiny import TinyClip

if TYPE_CHECKING:
    from open_clip.model import CLIP

LOGIT_SCALE = 100.0
"""CLIP's trained temperature; it stays fixed."""


class Language(nn.Module):
    """The text tower of a CLIP model, cut down to the prompts of one config.

    Three reductions do not change the result. Only the embeddings of the prompts' own words are kept (a dozen of
    CLIP's 49,408). The context ends with the last end token. The words that all prompts begin with are run once:
    attention is causal, and a sentence is read out at its end token.

    Attributes:
        tokens: (K, width) parameter, the learnable depth tokens.
        slot: position of the depth word or token in a prompt.
        width: length D of a text feature.
        vocabulary: rows of CLIP's full vocabulary that `embedding` holds; of a file with all 49,408 rows, these are
            read.
    """

    tokens: Tensor
    embedding: Tensor
    position: Tensor
    projection: Tensor

    def __init__(self, clip: CLIP | TinyClip, config: HybridEncoderConfig) -> None:
        super().__init__()
        if clip.text_pool_type not in ("argmax", "eos"):
            raise UserError(
                f"{config.clip}: its text tower is not read out at the end token (pool {clip.text_pool_type!r})"
            )
        self.text_norm = config.text_norm
        words, token, self.slot, self._suffix = _tokenize(config.prompt, clip.context_length)
        self.vocabulary = sorted({*token.padded[0], *(number for row in words.padded for number in row)})
        self._words, self._token = words.renumbered(self.vocabulary), token.renumbered(self.vocabulary)

        context = max(len(words.padded[0]), len(token.padded[0]))
        self.embedding = nn.Parameter(clip.token_embedding.weight[self.vocabulary].detach().clone())
        self.position = nn.Parameter(clip.positional_embedding[:context].detach().clone())
        self.transformer = clip.transformer
        self.ln_final = clip.ln_final
        self.projection = nn.Parameter(cast(Tensor, clip.text_projection).detach().clone())
        self.requires_grad_(False)
        if config.alignment != "none":
            for parameter in self._trained(config.train_text):
                parameter.requires_grad_(True)

        if config.token_init == "words":
            tokens = self._interpolated_words(config.num_tokens)
        else:
            tokens = 0.02 * torch.randn(config.num_tokens, self.embedding.shape[1])
        self.tokens = nn.Parameter(tokens, requires_grad=config.train_tokens)
        self.width = int(self.projection.shape[1])
        self._cache = TextCache(by_value=("tokens",))

    def train(self, mode: bool = True) -> Language:
        """As `nn.Module.train`; a change of the mode clears the cache."""
        if mode != self.training:
            self._cache.clear()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Language:
        self._cache.clear()  # parameters move to another device or precision
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any) -> None:
        self._cache.clear()
        super()._load_from_state_dict(*args)

    def word_features(self) -> Tensor:
        """Text features of stage 1's seven prompts, near to far: (7, D), each of length 1; cached likewise."""
        return self._cache.get("words", self._parameters_of("words"), partial(self._computed, "words"))

    def text_features(self) -> Tensor:
        """Text features of the K depth tokens' prompts: (K, D), each of length 1; with text_norm="matrix" then divided
        by the norm of the whole matrix.

        They are computed once, and again when a token or the text tower has changed; `text_cache` says how this is
        detected. Where gradients are wanted, they are also computed again after a backward pass: all calls before it
        share one graph. `torch.export` takes cached features as a constant: run the model once before, and both under
        `torch.no_grad()`.
        """
        return self._cache.get("tokens", self._parameters_of("tokens"), partial(self._computed, "tokens"))

    def forward(self, prompts: str) -> Tensor:
        """The text features of "tokens" or "words", computed anew, in the precision of the parameters."""
        with without_autocast(self.tokens.device):
            return self._token_features() if prompts == "tokens" else self._word_features()

    def _parameters_of(self, prompts: str) -> dict[str, Tensor]:
        """All that the text features of these prompts depend on, by name. Attributes are read, too: a wrapper for
        several devices may have put other tensors there."""
        found: dict[str, Tensor] = dict(self.named_parameters())
        found.update(tokens=self.tokens, embedding=self.embedding, position=self.position, projection=self.projection)
        if prompts == "words":
            del found["tokens"]
        return found

    def _computed(self, prompts: str, replaced: dict[str, Tensor]) -> Tensor:
        """`forward`, with the tensors of `replaced` in place of the parameters of the same names."""
        if not replaced:
            return cast(Tensor, self(prompts))
        return cast(Tensor, torch.func.functional_call(self, replaced, (prompts,)))

    def _trained(self, choice: str) -> list[nn.Parameter]:
        """The text tower's parameters that train under `train_text`."""
        ends = [self.embedding, self.position, *self.ln_final.parameters(), self.projection]
        return {"none": [], "ends": ends, "all": [*ends, *self.transformer.parameters()]}[choice]

    def _word_features(self) -> Tensor:
        own = torch.stack([self._rows(row[self.slot :]) for row in self._words.padded])
        return F.normalize(self._read(own, self._words), dim=-1)

    def _token_features(self) -> Tensor:
        rest = self._rows(self._token.padded[0][self.slot + 1 :]).expand(len(self.tokens), -1, -1)
        own = torch.cat([self.tokens[:, None].to(rest.dtype), rest], dim=1)
        features = F.normalize(self._read(own, self._token), dim=-1)
        return features / features.norm() if self.text_norm == "matrix" else features

    def _rows(self, numbers: Sequence[int]) -> Tensor:
        """(n, width) rows of the embedding, taken without a tensor of indices: it would have to follow the embedding to
        its device, and would lose its values on the device "meta"."""
        return torch.stack([self.embedding[number] for number in numbers])

    def _read(self, own: Tensor, sentences: _Sentences) -> Tensor:
        """The text features of sentences, each read at its end token.

        All sentences begin alike ("This patch appears to be"), and attention is causal: the beginning is run once, and
        every sentence's own words attend to its keys and values.

        Args:
            own: (N, S, width) embeddings from the slot on.
            sentences: N sentences, or one whose beginning and end position all N share.

        Returns:
            (N, D), not normalised.
        """
        start = (self._rows(sentences.padded[0][: self.slot]) + self.position[: self.slot])[None]
        own = own + self.position[self.slot : self.slot + own.shape[1]]
        for block in self.transformer.resblocks:
            start, own = _causal_block(block, start, own)
        ends = [end - self.slot for end in sentences.ends]
        last = own[:, ends[0]] if len(ends) == 1 else torch.stack([own[i, end] for i, end in enumerate(ends)])
        return cast(Tensor, self.ln_final(last) @ self.projection)

    def reset_tokens(self) -> None:
        """Interpolates the tokens between the seven words again, after the words' embeddings have changed."""
        with torch.no_grad():
            self.tokens.copy_(self._interpolated_words(len(self.tokens)))

    def _interpolated_words(self, count: int) -> Tensor:
        """(K, width): the seven words' embeddings (each the mean over a word's tokens), linearly interpolated from near
        to far."""
        own = [row[self.slot : end - self._suffix] for row, end in zip(*self._words, strict=True)]
        words = torch.stack([self._rows(row).mean(0) for row in own]).detach()
        return F.interpolate(words.T[None], size=count, mode="linear", align_corners=True)[0].T.contiguous()


def _causal_block(block: nn.Module, start: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """One block of open_clip's text transformer for sentences with a common start.

    Args:
        block: its `ResidualAttentionBlock`.
        start: (1, P, width) states of the common start.
        own: (N, S, width) states of every sentence's own words.

    Returns:
        `start` and `own` after the block.
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
    """Pixel-wise alignment: logits_k = 100 <f / |f|, t_k> at every position.

    Where the level's channels differ from the text width, the channel axis is resized (nearest) to the width; since
    that repeats or drops channels, it is folded into the text instead.

    Args:
        level: (B, C, h, w) fused features.
        text: (K, D) text features.

    Returns:
        (B, K, h, w), in the level's precision; lengths and the division are float32 even where the level is bfloat16.
    """
    with without_autocast(level.device):
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
    """(wanted,) indices of the channels that `F.interpolate(mode="nearest")` takes when it resizes `given` channels to
    `wanted`."""
    index = torch.arange(given, dtype=torch.float32, device=device)
    return F.interpolate(index[None, None], size=wanted, mode="nearest")[0, 0].long()


class _Sentences(NamedTuple):
    """CLIP's byte-pair tokens of sentences that begin alike.

    Attributes:
        padded: one row a sentence, all of one length.
        ends: the position of each sentence's end token.
    """

    padded: tuple[tuple[int, ...], ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, sentences: Sequence[Sequence[int]]) -> _Sentences:
        length = max(map(len, sentences))
        padded = tuple((*sentence, *[0] * (length - len(sentence))) for sentence in sentences)
        return cls(padded, tuple(len(sentence) - 1 for sentence in sentences))

    def renumbered(self, vocabulary: Sequence[int]) -> _Sentences:
        """The sentences with positions in a vocabulary in place of CLIP's numbers."""
        position = {number: i for i, number in enumerate(vocabulary)}
        return self._replace(padded=tuple(tuple(position[number] for number in row) for row in self.padded))


_START, _END = 49406, 49407
"""CLIP's tokens at the start and the end of a sentence."""
_WORDS = {
    "this": 589, "patch": 8721, "appears": 8743, "to": 531, "be": 655, "very": 1070, "close": 2660, "slightly": 8456,
    "neither": 14398, "nor": 6190, "distant": 18949, "x": 343,
}  # fmt: skip
"""CLIP's tokens of the words in the default prompts: for these no tokenizer is built."""


def _encode(text: str) -> list[int]:
    """CLIP's byte-pair tokens of a text, word by word, without start and end tokens.

    >>> _encode("This patch appears to be")
    [589, 8721, 8743, 531, 655]
    """
    words = text.lower().split()
    return [_WORDS[word] for word in words] if _WORDS.keys() >= set(words) else list(_tokenizer().encode(text))


@cache
def _tokenizer() -> Any:
    """CLIP's tokenizer. It takes a tenth of a second to build, and open_clip takes seconds to import."""
    import open_clip

    return open_clip.SimpleTokenizer()


def _tokenize(prompt: str, context: int) -> tuple[_Sentences, _Sentences, int, int]:
    """CLIP's tokens of a prompt with the seven words, and with a single token in place of a word.

    Args:
        prompt: with one {depth}.
        context: largest number of tokens in a sentence, start and end tokens included.

    Returns:
        The seven sentences; the sentence with a single token; the position of the word; the number of tokens between
        the word and the end token.

    Raises:
        UserError: the word merges with its neighbours into other tokens, or a sentence is too long.
    """
    before, after = (_encode(part) for part in prompt.format(depth="\0").split("\0"))
    sentences = []
    for word in (*DEPTH_WORDS, "x"):
        inside = before + _encode(word) + after
        if _encode(prompt.format(depth=word)) != inside:
            raise UserError(f"prompt={prompt!r}: {{depth}} has to stand on its own, between spaces")
        if len(inside) + 2 > context:
            raise UserError(f"prompt={prompt!r} is longer than CLIP's {context} tokens with {word!r} in it")
        sentences.append([_START, *inside, _END])
    return _Sentences.of(sentences[:-1]), _Sentences.of(sentences[-1:]), 1 + len(before), len(after)
