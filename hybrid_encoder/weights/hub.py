"""Saves models as safetensors + config.json + model card, and loads them from such a folder or from the hub."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import UserError
from ..writing import atomic_path
from .card import CARD_MARK, model_card
from .in_package import shipped_folder, shipped_names, what_it_is
from .network import hub_address, hub_is_reachable
from .reading import check_described, load_state, read_tensors

CONFIG_FILE = "config.json"
TENSOR_FILE = "model.safetensors"
CARD_FILE = "README.md"
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")

T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)


class Saved:
    """A saved model's folder: its config, which is read and checked, and its tensors.

    Attributes:
        path: of config.json.
        kind: `hub_kind` of the saved module.
        config: the content of config.json.
        source: path of the file of tensors.
        is_shipped: whether these are weights in the package, which are named without a path.
    """

    def __init__(self, source: str | Path, **hub_options: Any) -> None:
        folder = _local_folder(source, hub_options)
        path = folder / CONFIG_FILE
        try:
            self.config = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError(f"{folder} holds no {CONFIG_FILE}: {_what_folder(folder)}") from error
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{path} could not be read as JSON ({error}): copy or download it again") from error
        if not isinstance(self.config, dict) or not isinstance(self.config.get("kind"), str):
            raise UserError(f"{path} is not by this package: expected what save_pretrained wrote")
        self.path = path
        self.kind = self.config["kind"]
        # The name is fixed, so that a config cannot name another file.
        self.source = str(folder / TENSOR_FILE)
        self.is_shipped = shipped_folder(source) is not None
        if self.is_shipped:
            print(what_it_is(str(source), self.about().get("training_data", "?")), file=sys.stderr)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the file, which every call reads again."""
        return read_tensors(self.source)

    def fill(self, build: Callable[[dict[str, Any]], M], tensors: dict[str, Tensor] | None = None) -> M:
        """The module that `build` makes of the config, with its tensors, in eval mode. Takes memory only if they fit.

        Args:
            build: makes the module from the config.
            tensors: tensors under the module's names; None: all tensors of the file.

        Raises:
            UserError: as `get` and `load_state`.
        """
        tensors = self.tensors() if tensors is None else tensors
        if not self.is_shipped:  # shipped tensors fit, and on the device "meta" PyTorch imports its compiler: seconds
            check_described(lambda: self.get(build), tensors, self.source)
        module = self.get(build)
        load_state(module, tensors, self.source)
        return module.eval()

    def about(self) -> dict[str, str]:
        """What config.json says about the model's origin, for the model card."""
        about = self.config.get("about")
        return {str(key): str(value) for key, value in about.items()} if isinstance(about, dict) else {}

    def get(self, build: Callable[[dict[str, Any]], T]) -> T:
        """What `build` makes of the config; errors about missing or wrong entries become a `UserError` with the
        path."""
        try:
            return build(self.config)
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from error
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
            raise UserError(
                f"{self.path} does not describe a model of this package ({type(error).__name__}: {error})"
            ) from error


class HubModel:
    """Adds `save_pretrained` and `push_to_hub` to a module, which gives its config by `hub_config`.

    Attributes:
        hub_kind: "HybridEncoder" or "DepthModel": the class that loads it, also for subclasses.
        about: entries of the model card: "preset", "towers", "training_data", "origin"; saved with the model.
    """

    hub_kind: ClassVar[str]
    about: dict[str, str]

    def hub_config(self) -> dict[str, Any]:
        """Plain values from which the module is rebuilt."""
        raise NotImplementedError

    def save_pretrained(self, folder: str | Path, training_data: str | None = None) -> Path:
        """Writes model.safetensors, config.json and a model card; each whole or not at all.

        Args:
            folder: is created if it does not exist.
            training_data: what the model was trained on, for the card; None: what `about` says.

        Raises:
            UserError: the folder holds a README.md, config.json or model.safetensors that this package did not write,
                or it cannot be written.
        """
        return self._write(Path(folder), training_data, {})

    def _write(self, folder: Path, training_data: str | None, further: Mapping[str, Any]) -> Path:
        """`save_pretrained`, with further entries of config.json."""
        assert isinstance(self, nn.Module)
        if training_data is not None:
            self.about["training_data"] = training_data
        config = {"kind": self.hub_kind, **self.hub_config(), "about": self.about, **further}
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        try:
            _check_ours(folder)
            with atomic_path(folder / CONFIG_FILE) as path:  # first, since it marks the folder as ours
                path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            with atomic_path(folder / TENSOR_FILE) as path:
                save_file(tensors, path, metadata={"format": "pt"})
            with atomic_path(folder / CARD_FILE) as path:
                path.write_text(model_card(config), encoding="utf-8")
        except (OSError, SafetensorError) as error:
            raise UserError(f"{folder} could not be written ({error}): choose another folder") from error
        return folder

    def push_to_hub(
        self, repo_id: str, training_data: str | None = None, private: bool = False, token: str | None = None
    ) -> str:
        """Saves the model into a hub repository, which is created if it does not exist.

        Returns:
            The address of the commit.

        Raises:
            UserError: no such account, no right to write, no network.
        """
        import huggingface_hub  # slow to import, and not needed for folders
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, training_data)
            try:
                api = huggingface_hub.HfApi(token=token)
                api.create_repo(repo_id, private=private, exist_ok=True)
                return str(api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload model"))
            except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
                raise UserError(
                    f"{repo_id} could not be written on the hub ({_first_line(error)}): expected 'account/name', and a "
                    "token that may write (`hf auth login`)"
                ) from error


def _check_ours(folder: Path) -> None:
    """Raises `UserError` where `save_pretrained` would replace a file that it did not write."""
    card, config, tensors = folder / CARD_FILE, folder / CONFIG_FILE, folder / TENSOR_FILE
    try:
        ours = isinstance(json.loads(config.read_text(encoding="utf-8"))["kind"], str)
    except (FileNotFoundError, ValueError, RecursionError, LookupError, TypeError):
        ours = False
    foreign = [path for path in (config, tensors) if path.exists() and not ours]
    if card.exists() and not (card.is_file() and CARD_MARK in card.read_text(encoding="utf-8", errors="replace")):
        foreign.append(card)
    if foreign:
        names = " and ".join(path.name for path in foreign)
        raise UserError(f"{folder} holds a {names} that this package did not write: choose another folder")


def looks_like_source(source: str | Path) -> bool:
    """Whether `source` names a folder or a hub repository rather than a preset."""
    return Path(source).is_dir() or "/" in str(source) or "\\" in str(source) or str(source) in shipped_names()


def _local_folder(source: str | Path, hub_options: dict[str, Any]) -> Path:
    if Path(source).is_dir():
        return Path(source)
    shipped = shipped_folder(source)
    if shipped is not None:
        return shipped
    if Path(source).is_file():
        raise UserError(f"{source} is a file: give the folder that holds {CONFIG_FILE} and {TENSOR_FILE}")
    if not _HUB_ID.fullmatch(str(source)):
        shipped_with_us = ", ".join(shipped_names())
        raise UserError(
            f"{source}: no such folder, no hub id, which would be 'account/name', and none of the weights in this "
            f"package ({shipped_with_us})"
        )
    import huggingface_hub  # slow to import, and not needed for folders
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    answers = hub_is_reachable()
    if not answers:
        hub_options = {**hub_options, "local_files_only": True}
    try:
        return Path(
            huggingface_hub.snapshot_download(str(source), allow_patterns=[CONFIG_FILE, TENSOR_FILE], **hub_options)
        )
    except RepositoryNotFoundError as error:
        raise UserError(f"{source}: no such folder, and no such repository on the hub (or it is private)") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        reason = _first_line(error) if answers else f"{hub_address()} does not answer"
        raise UserError(f"{source}: no such folder, and the hub could not be reached ({reason})") from error


def _what_folder(folder: Path) -> str:
    if (folder / "encoder.pth").exists():
        return f"it is a trainer's folder, which hybrid_encoder.open_depth_model({str(folder)!r}) opens"
    return "expected a folder that save_pretrained wrote"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
