"""Files of foundation models: which of their tensors are the vision transformer's, and under what licence they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from .reading import read_tensors

DINOV3_LICENCE = "DINOv3 License (Meta): own terms, to be passed on with every copy and derived model"
_PREFIXES = ("pretrained.", "visual.trunk.")
"""Prefixes of a transformer's tensors: in files of Depth Anything, and in those of open_clip's timm models."""
_SIZES_V2 = {384: "small", 768: "base", 1024: "large", 1536: "giant"}
_SIZES_V3 = {
    (384, False): "small",
    (384, True): "small_plus",
    (768, False): "base",
    (1024, False): "large",
    (1280, True): "huge_plus",
    (4096, True): "7b",
}
"""By width, and whether the blocks' MLP is gated."""
_DEPTH_ANYTHING = {
    True: "Apache-2.0",
    False: "CC-BY-NC-4.0, no commercial use, where it is Depth Anything V2's ViT-B, -L or -G (version 1's files look "
    "alike)",
}
"""Licences of version 2, by whether the model is the ViT-S."""


@dataclass(frozen=True)
class FoundationFile:
    """What a file of a foundation model holds.

    Attributes:
        what: the model, in words.
        licence: the publisher's terms, in words.
        options: the options that build a tower for it; FILE is a placeholder for its path.
    """

    what: str
    licence: str
    options: str

    def describe(self, path: Path) -> list[str]:
        """Lines for `hybrid-encoder info`."""
        return [
            f"{path}: {self.what}",
            f"  licence: {self.licence}",
            f"  use: {self.options.replace('FILE', str(path))}",
        ]


def transformer_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file's vision transformer without the file's prefix. Heads and text towers are left out. All
    tensors, where no name has such a prefix.

    >>> list(transformer_tensors({"pretrained.norm.weight": Tensor(), "depth_head.scratch.weight": Tensor()}))
    ['norm.weight']
    """
    for prefix in _PREFIXES:
        inner = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        if inner:
            return inner
    return dict(tensors)


def recognise(tensors: Mapping[str, Tensor]) -> FoundationFile | None:
    """What a file of a foundation model holds, by names and shapes of its tensors; None for other files."""
    inner = transformer_tensors(tensors)
    if "visual.trunk.patch_embed.proj.weight" in tensors:
        return _open_clip(inner)
    if "cls_token" not in inner:
        return None
    width = int(inner["cls_token"].shape[-1])
    if "blocks.0.ls1.gamma" in inner and "pos_embed" in inner:
        registers = "register_tokens" in inner or "reg_token" in inner
        return _dinov2(width, registers, any(name.startswith("pretrained.") for name in tensors))
    if "storage_tokens" in inner or ("reg_token" in inner and "pos_embed" not in inner):
        return _dinov3(width, inner)
    return None


def file_licence(path: Path) -> str | None:
    """The publisher's terms of a file; None where the file does not exist or is not recognised.

    Raises:
        UserError: the file cannot be read.
    """
    found = recognise(read_tensors(path)) if path.is_file() else None
    return None if found is None else found.licence


def _dinov2(width: int, registers: bool, depth_anything: bool) -> FoundationFile:
    size = _SIZES_V2.get(width)
    name = f"vit_{size or 'SIZE'}_patch14{'_reg4' if registers else ''}_dinov2"
    # Networks with registers were published with the resizing of position embeddings that timm has.
    resize = "" if registers else " --encoder_option position_resize=facebook"
    options = f"--encoder_option dino={name}{resize} --dino_weights FILE"
    if depth_anything:
        what = f"a Depth Anything model: its encoder is a DINOv2 of width {width}, its depth head is left out"
        return FoundationFile(what, _DEPTH_ANYTHING[size == "small"], options)
    what = f"a DINOv2 of width {width}{' with registers' if registers else ''}"
    return FoundationFile(what, "Apache-2.0 where it is Meta's", options)


def _dinov3(width: int, inner: Mapping[str, Tensor]) -> FoundationFile:
    gated = "blocks.0.mlp.w1.weight" in inner or "blocks.0.mlp.fc1_g.weight" in inner
    biases = [value for name, value in inner.items() if name.endswith(("attn.q_bias", "attn.qkv.bias"))]
    biased = "_qkvb" if any(bool(bias.any()) for bias in biases) else ""
    options = f"--encoder_option dino=vit_{_SIZES_V3.get((width, gated), 'SIZE')}_patch16_dinov3{biased}"
    return FoundationFile(f"a DINOv3 of width {width}", DINOV3_LICENCE, f"{options} --dino_weights FILE")


def _open_clip(inner: Mapping[str, Tensor]) -> FoundationFile:
    siglip = "attn_pool.latent" in inner
    name, licence = ("ViT-B-16-SigLIP", "Apache-2.0") if siglip else ("EVA02-B-16", "MIT")
    what = f"an open_clip model with an image tower of timm, {'as SigLIP is' if siglip else 'as EVA02 is'}"
    options = f"--encoder_option image_tower=NAME --encoder_option image_tower_weights=FILE, NAME such as {name}"
    return FoundationFile(what, f"{licence} where it is {'Google' if siglip else 'BAAI'}'s", options)
