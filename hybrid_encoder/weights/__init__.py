"""Files of weights: safe reading, strict filling, and where the towers' pretrained files are looked for."""

from .files import load_state, read_checkpoint, read_tensors, stated_bins, stated_json, stated_size, tensors_of

__all__ = ["load_state", "read_checkpoint", "read_tensors", "stated_bins", "stated_json", "stated_size", "tensors_of"]
