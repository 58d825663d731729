"""The encoder as the image backbone of detectors and bird's-eye-view models: mmdet, mmdet3d, and what is built on them.

`register` enters `backbone.HybridBackbone` into the lists of mmengine or mmcv 1.x; nothing else here imports them.
docs/BEV.md has the lines for a config.
"""
