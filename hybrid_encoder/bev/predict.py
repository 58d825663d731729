"""Writes a picture of each rig: its images, the predicted map and the labelled map."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.utils.data import default_collate

from ..colormap import write_picture
from ..data.splits import evenly_spaced
from ..images import read_image
from .dataset import RigDataset, to_batch
from .maps import MapSettings
from .model import BevModel
from .options import BevPredictOptions
from .picture import rig_picture
from .rigs import open_rigs


def predict(options: BevPredictOptions, model: BevModel, device: torch.device) -> list[Path]:
    """Writes a picture of each sample to `options.out`, named after scene and sample.

    Args:
        model: on the device.

    Returns:
        The files written.

    Raises:
        UserError: as `open_rigs`.
    """
    nets = model.nets
    source = open_rigs(options, options.part)
    dataset = RigDataset(
        source, evenly_spaced(len(source), options.samples), nets.size, MapSettings(nets.grid, nets.classes)
    )
    written = []
    for index in range(len(dataset)):
        batch = to_batch(default_collate([dataset[index]]), device)
        probabilities = model.logits(batch.images, batch.intrinsics, batch.camera_to_ego).sigmoid()[0]
        maps = {"predicted": probabilities.cpu().numpy(), "labelled": batch.maps[0].cpu().numpy()}
        rig = dataset.rig(index)
        images = [(camera.name, read_image(camera.image)) for camera in rig.cameras]
        written.append(options.out / f"{rig.scene}_{rig.token}.jpg")
        write_picture(written[-1], rig_picture(images, maps, nets.classes, nets.grid))
    return written
