"""Text features of phrases that a user types in the place of the seven words."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import DEPTH_WORDS
from ..errors import UserError
from .backbones import build_clip
from .encoder import HybridEncoder
from .language import _END, _START, Language, _encode, _Sentences

MAX_PHRASES = 16


class Words(NamedTuple):
    """What a whole CLIP knows of words, of which an encoder keeps a dozen."""

    embedding: Tensor
    """(49408, width)."""
    position: Tensor
    """(77, width)."""

    @classmethod
    def of(cls, clip: str, weights: str) -> Words:
        """The words of an open_clip architecture with weights as `build_clip` takes them.

        Raises:
            UserError: as `build_clip`.
        """
        model = build_clip(clip, weights)
        return cls(model.token_embedding.weight.detach(), model.positional_embedding.detach())


@torch.no_grad()
def phrase_features(encoder: HybridEncoder, phrases: Sequence[str], words: Words | None = None) -> Tensor:
    """The text features of an encoder's prompt with phrases in the place of its depth word: (m, D), each of length 1.

    An encoder keeps the embeddings of its prompts' own words alone, a dozen of CLIP's 49,408.

    Args:
        phrases: near to far, e.g. "very close", "close distant".
        words: of the CLIP that the encoder was made from, for phrases of any words; None: of words of the seven.

    Raises:
        UserError: no phrase, more than 16, a word that is not known, a phrase that is too long, or another CLIP.
    """
    if not 1 <= len(phrases) <= MAX_PHRASES or not all(phrase.strip() for phrase in phrases):
        raise UserError(f"{len(phrases)} phrases: expected 1 to {MAX_PHRASES}, none of them empty")
    before, after = (_encode(part) for part in encoder.config.prompt.split("{depth}"))
    rows = [[_START, *before, *_encode(phrase), *after, _END] for phrase in phrases]
    language = encoder.language if words is None else _with_words(encoder.language, words, rows)
    place = {number: i for i, number in enumerate(language.vocabulary)}
    for phrase, row in zip(phrases, rows, strict=True):
        if not set(row) <= place.keys() or len(row) > len(language.position):
            known = sorted({word for known in DEPTH_WORDS for word in known.split()})
            most = len(language.position) - len(before) - len(after) - 2
            which = f"of the words {', '.join(known)}" if words is None else "pieces of words"
            raise UserError(f"{phrase!r}: this encoder knows phrases of at most {most} {which}")
    sentences = _Sentences.of([[place[number] for number in row] for row in rows])
    own = torch.stack([language._rows(row[language.slot :]) for row in sentences.padded])
    return F.normalize(language._read(own, sentences), dim=-1)


def _with_words(language: Language, words: Words, rows: Sequence[Sequence[int]]) -> Language:
    """A copy that shares the text tower, and also knows the words of some sentences and CLIP's whole context."""
    width = language.embedding.shape[1]
    if words.embedding.shape[1] != width:
        raise UserError(f"CLIP's words have {words.embedding.shape[1]} numbers, those of the encoder {width}")
    new = sorted({number for row in rows for number in row} - set(language.vocabulary))
    longer = copy.copy(language)
    longer._parameters = dict(language._parameters)
    longer.vocabulary = [*language.vocabulary, *new]
    longer.embedding = _joined(language.embedding, words.embedding[new])
    longer.position = _joined(language.position, words.position[len(language.position) :])
    return longer


def _joined(own: Tensor, further: Tensor) -> nn.Parameter:
    return nn.Parameter(torch.cat([own, further.to(own)]), requires_grad=False)
