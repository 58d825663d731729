"""Text features of phrases that a user types in the place of the seven words."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import DEPTH_WORDS
from ..errors import UserError
from .encoder import HybridEncoder
from .language import _END, _START, _encode, _Sentences

MAX_PHRASES = 16


@torch.no_grad()
def phrase_features(encoder: HybridEncoder, phrases: Sequence[str]) -> Tensor:
    """The text features of an encoder's prompt with phrases in the place of its depth word: (m, D), each of length 1.

    An encoder keeps the embeddings of its prompts' own words alone, a dozen of CLIP's 49,408.

    Args:
        phrases: near to far, of words of the seven, e.g. "very close", "close distant".

    Raises:
        UserError: no phrase, more than 16, a word that the encoder does not keep, or a phrase that is longer than the
            longest of the seven.
    """
    language = encoder.language
    if not 1 <= len(phrases) <= MAX_PHRASES or not all(phrase.strip() for phrase in phrases):
        raise UserError(f"{len(phrases)} phrases: expected 1 to {MAX_PHRASES}, none of them empty")
    before, after = (_encode(part) for part in encoder.config.prompt.split("{depth}"))
    place = {number: i for i, number in enumerate(language.vocabulary)}
    rows = []
    for phrase in phrases:
        row = [_START, *before, *_encode(phrase), *after, _END]
        if not set(row) <= place.keys() or len(row) > len(language.position):
            words = sorted({word for known in DEPTH_WORDS for word in known.split()})
            most = len(language.position) - len(before) - len(after) - 2
            raise UserError(f"{phrase!r}: this encoder knows phrases of at most {most} of the words {', '.join(words)}")
        rows.append([place[number] for number in row])
    sentences = _Sentences.of(rows)
    own = torch.stack([language._rows(row[language.slot :]) for row in sentences.padded])
    return F.normalize(language._read(own, sentences), dim=-1)
