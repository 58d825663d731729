"""Says in words what an unknown file of weights seems to be, by its first bytes and by the names of its tensors."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .archive import is_zip

_FIRST_BYTES = (
    (b"version https://git-lfs", "a Git LFS pointer instead of the file: run `git lfs pull` where it came from"),
    (b"<", "a web page, perhaps a download's error or login page: download the file again"),
    (b"\x93NUMPY", "a numpy array"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"{", "a JSON text"),
    (b"%PDF", "a PDF document"),
)

# The first rule decides whose every part is the beginning of some tensor's name.
_NAMES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("model.clip_align_conv.",), "a stage-1 checkpoint of the authors"),
    (("clip_align_conv.", "extra_tkns_learnables_depth."), "the encoder of a stage-2 checkpoint of the authors"),
    (("pretrained.", "depth_head."), "a Depth Anything model"),
    (("depth_head.",), "the DPT decoder of a stage-2 checkpoint of the authors"),
    (("encoder.language.", "decoder."), "a depth model of this package"),
    (("encoder.encoder.", "decoder."), "a ResNet depth model of this package"),
    (("language.", "fusion."), "a hybrid encoder of this package"),
    (("language.",), "a hybrid encoder of this package"),
    (("project.", "narrow.", "heads."), "a DPT decoder of this package"),
    (("visual.trunk.",), "an open_clip model with an image tower of timm, such as SigLIP or EVA02"),
    (("visual.", "transformer.resblocks."), "a CLIP model"),
    (("patch_embed.proj.", "blocks."), "a vision transformer, such as DINO's"),
    (("embeddings.patch_embeddings", "encoder.layer."), "a vision transformer under Hugging Face transformers' names"),
    (("embeddings.patch_embeddings",), "a vision transformer under Hugging Face transformers' names"),
    (("layer0.", "backprojector."), "a matching encoder of ManyDepth"),
    (("encoder.conv1.", "encoder.layer1."), "a ResNet encoder of the Monodepth2 family"),
    (("decoder.0.conv.conv.",), "a U-Net depth decoder of the Monodepth2 family"),
    (("pose_conv.",), "a pose network of the Monodepth2 family"),
    (("net.0.", "net.3."), "a pose decoder of the Monodepth2 family"),
    (("conv1.", "layer1.0.conv1."), "a ResNet under torchvision's names"),
)


def describe_tensors(names: Iterable[str]) -> str:
    """The model that tensors of these names seem to belong to, in words."""
    names = list(names)
    if not names:
        return "empty"
    for starts, meaning in _NAMES:
        if all(any(name.startswith(start) for name in names) for start in starts):
            return meaning
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"something unknown to this package, with the tensors {shown}"


def describe_file(path: Path) -> str:
    """What a file without readable tensors seems to be, in words, with a remedy where there is one."""
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        return "an empty file: download or copy it again"
    for start, meaning in _FIRST_BYTES:
        if head.lstrip().startswith(start):
            return meaning
    if head.startswith(b"PK"):
        if not is_zip(path):
            return "a truncated file of torch: download or copy it again"
        return "a damaged file of torch, or a zip archive of something else"
    if head[8:9] == b"{":
        return "a truncated or damaged safetensors file: download or copy it again"
    if head[:1] == b"\x80":
        return "a pickle of objects that are not tensors, which is not opened"
    if all(32 <= byte < 127 or byte in b"\r\n\t" for byte in head):
        return "a text"
    return "something else than a file of tensors"
