"""Freezing an encoder as a whole, and state dicts without its frozen parameters."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import UserError

FROZEN_KEY = "frozen_checksum"
"""Entry of a state dict without frozen parameters: their checksum."""

T = TypeVar("T", bound="Trainable")


class Trainable(nn.Module):
    """A module that can be frozen as a whole for a while, and saved without the parameters that never train."""

    def __init__(self) -> None:
        super().__init__()
        self._trained: tuple[str, ...] | None = None
        self._asked_mode = True

    def freeze(self: T) -> T:
        """Turns off all gradients and keeps eval mode, whatever `.train()` asks for, until `unfreeze`."""
        if self._trained is None:
            self._asked_mode = self.training
            self.eval()
            self._trained = tuple(name for name, parameter in self.named_parameters() if parameter.requires_grad)
            self.requires_grad_(False)
        return self

    def unfreeze(self: T) -> T:
        """What trained before `freeze` trains again, in the mode that was asked for last."""
        if self._trained is not None:
            trained, mode = set(self._trained), self._asked_mode
            self._trained = None
            for name, parameter in self.named_parameters():
                if name in trained:
                    parameter.requires_grad_(True)
            self.train(mode)
        return self

    def train(self: T, mode: bool = True) -> T:
        """As `nn.Module.train`; a frozen module stays in eval mode until `unfreeze`."""
        if self._trained is None:
            return super().train(mode)
        self._asked_mode = mode
        return super().train(False)

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """The state dict without the parameters that never train, such as the text tower, and with their checksum.

        `load_state_dict` takes it if the encoder was built from the same config and its towers from the same published
        weights. Save the config beside it: `encoder.config.to_dict()`.
        """
        trained = set(self._trained or ())
        frozen = {n for n, p in self.named_parameters() if not p.requires_grad and n not in trained}
        state = self.state_dict()
        kept = {name: value for name, value in state.items() if name not in frozen}
        kept[FROZEN_KEY] = torch.tensor(_checksum({name: state[name] for name in frozen}))
        return kept

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        stated = state_dict.pop(prefix + FROZEN_KEY, None)
        if stated is not None:
            absent = {n: value for n, value in self.state_dict().items() if prefix + n not in state_dict}
            if _checksum(absent) != int(stated):
                raise UserError(
                    f"the {len(absent)} parameters that this state dict leaves out are not those that it was saved "
                    "with: build the encoder from the same config and published weights, or save state_dict() whole"
                )
            state_dict.update({prefix + name: value for name, value in absent.items()})
        super()._load_from_state_dict(state_dict, prefix, *args)


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    """CRC-32 of names and bytes; the device does not matter."""
    found = 0
    for name in sorted(tensors):
        content: Any = tensors[name].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        found = zlib.crc32(content, zlib.crc32(name.encode(), found))
    return found
