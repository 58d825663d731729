"""`hybrid-encoder cache`: the decoded videos that training keeps for the next run."""

from __future__ import annotations

from ..data.cache_space import decoded_files, delete_unused, limit_bytes
from ..data.video_cache import cache_folder
from .options import CacheOptions


def run(options: CacheOptions) -> None:
    """Lists the decoded videos with their sizes; `--empty` deletes them."""
    folder, total = cache_folder(), 0
    for file in decoded_files(folder):
        deleted = options.empty and delete_unused(file.path)
        state = "deleted" if deleted else "in use, kept" if options.empty else ""
        total += 0 if deleted else file.size
        print(f"{file.size / 1e9:8.2f} GB  {file.path.name}  {state}".rstrip())
    print(f"{folder}: {total / 1e9:.2f} GB of at most {limit_bytes() / 1e9:g}")
