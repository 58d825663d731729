"""Where the towers' pretrained weights come from: file names, addresses, licences, and the user's folder of weights."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..config import HybridEncoderConfig
from ..errors import UserError
from .foundation import DINOV3_LICENCE, file_licence

WEIGHTS_VARIABLE = "HYBRID_ENCODER_WEIGHTS"
"""Environment variable that names a folder of weights."""
LOCAL_DIR = "local-dir:"
FILE_SUFFIXES = frozenset({".pt", ".pth", ".bin", ".safetensors"})
_NAMES_IN_FOLDER = (
    "open_clip_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
)

_TINY = ("tiny", "random")
_LICENCES = {
    "openai": "MIT (OpenAI CLIP)",
    "apache-2.0": "Apache-2.0",
    "bsd-3-clause": "BSD-3-Clause",
    "mit": "MIT",
    "dinov3-license": DINOV3_LICENCE,
    "cc-by-nc-4.0": "CC-BY-NC-4.0: no commercial use",
}


@dataclass(frozen=True)
class TowerSource:
    """The published weights of one option of a config.

    Attributes:
        option: the config's field, e.g. "clip_weights".
        architecture: as in the config.
        weights: the field's value.
        names: file names under which a weights folder may hold them, in the order of search.
        address: where they are published; empty: nowhere.
        hub_file: (repository, file) on the hub; None: they are not on the hub.
        licence: in words.
    """

    option: str
    architecture: str
    weights: str
    names: tuple[str, ...]
    address: str
    hub_file: tuple[str, str] | None
    licence: str


def tower_sources(config: HybridEncoderConfig) -> list[TowerSource]:
    """One entry for each tower of a config that does not start from random numbers."""
    return [source for source in _all_sources(config) if source.weights != "random"]


def _all_sources(config: HybridEncoderConfig) -> list[TowerSource]:
    """One entry for each tower, except tiny ones of random numbers, for which nothing is published."""
    found = []
    if (config.clip, config.clip_weights) != _TINY:
        found.append(clip_source(config.clip, config.clip_weights))
    if config.image_tower not in (None, "clip"):
        source_of = timm_source if image_trunk(str(config.image_tower)) is None else clip_source
        found.append(source_of(str(config.image_tower), config.image_tower_weights, "image_tower_weights"))
    if config.dino is not None and (config.dino, config.dino_weights) != _TINY:
        found.append(timm_source(config.dino, config.dino_weights, "dino_weights"))
    return found


def image_trunk(architecture: str) -> str | None:
    """The timm architecture that an open_clip architecture has as its image tower; None: it has none of timm.

    >>> image_trunk("EVA02-B-16"), image_trunk("RN50"), image_trunk("vit_base_patch14_dinov2")
    ('eva02_base_patch16_clip_224', None, None)
    """
    import open_clip  # slow to import, and not needed by the tiny towers

    config = open_clip.get_model_config(architecture) if ":" not in architecture else None
    return (config or {}).get("vision_cfg", {}).get("timm_model_name")


def clip_source(architecture: str, weights: str, option: str = "clip_weights") -> TowerSource:
    """The published weights of an open_clip model's tag; for a file or folder, `address` and `names` are empty."""
    import open_clip  # slow to import, as above

    published: dict[str, Any] = {}
    if not is_file_name(weights):
        published = open_clip.get_pretrained_cfg(architecture, weights) or {}
    names, hub_file = [], None
    url = str(published.get("url") or "")
    if url:
        names.append(PurePosixPath(url).name)
    if published.get("hf_hub"):
        repository, _, file = str(published["hf_hub"]).rpartition("/")
        hub_file = (repository, file or "open_clip_model.safetensors")
        folder = repository.rpartition("/")[2]
        names += [f"{folder}/{name}" for name in ([file] if file else _NAMES_IN_FOLDER)] + [f"{folder}.safetensors"]
    licence = _LICENCES.get(weights) or "see the publisher's page"
    trunk = image_trunk(architecture)
    if trunk is not None:
        licence = _stated_licence(weights) or timm_source(trunk, "random", option).licence
    address = url or (f"https://huggingface.co/{hub_file[0]}" if hub_file else "")
    return TowerSource(option, architecture, weights, tuple(names), address, hub_file, licence)


def timm_source(architecture: str, weights: str, option: str) -> TowerSource:
    """The published weights of a timm model; for a file or folder, `address` and `names` are empty."""
    import timm  # slow to import

    published = timm.get_pretrained_cfg(architecture) if timm.is_model(architecture) else None
    if published is None:
        return TowerSource(option, architecture, weights, (), "", None, "unknown")
    names, hub_file, address = [], None, str(published.url or "")
    if address:
        names.append(PurePosixPath(address).name)
    if published.hf_hub_id:
        folder = str(published.hf_hub_id).rpartition("/")[2]
        names += [f"{folder}/model.safetensors", f"{folder}.safetensors"]
        hub_file = (str(published.hf_hub_id), "model.safetensors")
        address = address or f"https://huggingface.co/{published.hf_hub_id}"
    licence = str(published.license or "see the publisher's page")
    licence = _LICENCES.get(licence, licence)
    if is_file_name(weights):
        names, hub_file, address = [], None, ""
        licence = _stated_licence(weights) or licence
    return TowerSource(option, architecture, weights, tuple(names), address, hub_file, licence)


def weights_folder(folder: str | Path | None = None) -> Path | None:
    """The folder of weights: the given one, or that of HYBRID_ENCODER_WEIGHTS; None where neither is set.

    Raises:
        UserError: there is no such folder.
    """
    named = folder or os.environ.get(WEIGHTS_VARIABLE)
    if not named:
        return None
    if not Path(named).is_dir():
        origin = "" if folder else f", which {WEIGHTS_VARIABLE} names,"
        raise UserError(f"{named}{origin} is no folder: expected the folder that holds the towers' weights")
    return Path(named)


def find_weights(source: TowerSource, folder: str | Path | None = None) -> Path | None:
    """The local file of a tower's weights: the file that the config names, or the one that the weights folder holds.

    Returns:
        None where the config names published weights and the weights folder does not hold them.

    Raises:
        UserError: a file or folder that the config names does not exist, or holds no such weights.
    """
    if is_file_name(source.weights):
        return named_file(source.weights, source.architecture)
    home = weights_folder(folder)
    if home is None:
        return None
    return next((home / name for name in source.names if (home / name).is_file()), None)


def cached_weights(source: TowerSource) -> Path | None:
    """The file of a tower's published weights in the hub's cache, where an earlier download left it."""
    import huggingface_hub  # slow to import, and not needed for local weights

    if source.hub_file is None:
        return None
    repository, file = source.hub_file
    found = (huggingface_hub.try_to_load_from_cache(repository, name) for name in (file, *_NAMES_IN_FOLDER))
    return next((Path(path) for path in found if isinstance(path, str)), None)


def is_file_name(weights: str) -> bool:
    """Whether a weights option names a local file or folder rather than a tag: an existing file, or what is a path."""
    path = Path(weights)
    return weights.startswith(LOCAL_DIR) or len(path.parts) > 1 or path.suffix in FILE_SUFFIXES or path.is_file()


def named_file(weights: str, what: str) -> Path:
    """The file that a weights option names: the path itself, or a file in the folder or "local-dir:FOLDER".

    Raises:
        UserError: no such file, or none of the known names in the folder.
    """
    path = Path(weights.removeprefix(LOCAL_DIR))
    if path.is_dir():
        inside = next((path / name for name in _NAMES_IN_FOLDER if (path / name).is_file()), None)
        if inside is None:
            raise UserError(f"{path} holds no weights of {what}: expected one of {', '.join(_NAMES_IN_FOLDER)}")
        return inside
    if not path.is_file():
        raise UserError(f"{weights}: no such file, expected the weights of {what}")
    return path


def _stated_licence(weights: str) -> str | None:
    """The terms of the file that a weights option names, which may come from another publisher than the architecture.
    None for a tag, or for a file that does not exist or is not recognised."""
    if not is_file_name(weights):
        return None
    path = Path(weights.removeprefix(LOCAL_DIR))
    files = [path / name for name in _NAMES_IN_FOLDER] if path.is_dir() else [path]
    return next((file_licence(file) for file in files if file.is_file()), None)


def towers_and_licences(config: HybridEncoderConfig) -> str:
    """Text for the model card: a line for each tower, with its weights and their licence."""
    lines = []
    for tower in _all_sources(config):
        if tower.architecture == "tiny":
            continue
        if tower.weights == "random":
            started = "start not recorded; the published weights of this architecture are"
            licence = tower.licence if tower.option != "clip_weights" else "MIT where OpenAI's"
        elif is_file_name(tower.weights):
            started, licence = f"from the file {Path(tower.weights).name};", tower.licence
        else:
            started, licence = f"weights {tower.weights};", tower.licence
        lines.append(f"- {tower.architecture}: {started} {licence}")
    return "\n".join(lines) or "- random start, no third-party weights"
