"""A hook of mkdocs: README is the home page, and what pages link to outside of docs/ comes along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

OUTSIDE = ("patches/README.md", "benchmarks/README.md", "CHANGELOG.md", "CONTRIBUTING.md")
EXAMPLES = "examples"


def on_files(files: Files, config: Any) -> Files:
    """Adds README as index.md, the pages of other folders, and the examples as they are."""
    root = Path(config.config_file_path).parent
    files.append(File.generated(config, "index.md", content=(root / "README.md").read_text(encoding="utf-8")))
    for path in [*(root / name for name in OUTSIDE), *sorted((root / EXAMPLES).iterdir())]:
        files.append(File.generated(config, path.relative_to(root).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links are those of the repository, where docs/ is a folder; in the site it is the top."""
    if "/" in page.file.src_uri:
        return markdown.replace("](../docs/", "](../")
    return markdown.replace("](docs/", "](").replace("](../", "](")
