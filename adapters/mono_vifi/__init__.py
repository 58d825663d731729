BACKBONE = "Hybrid"
"""Value of `--backbone` in a patched clone of Mono-ViFI."""
