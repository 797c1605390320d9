"""Saving and loading of models: JSON and safetensors, nothing pickled."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import spatiagraph
from spatiagraph._files import replaced_file
from spatiagraph.nn.config import Configurable, from_config, to_config

CONFIG = "config.json"
WEIGHTS = "model.safetensors"


class PretrainedModel(Configurable):
    """A model that can be written to a folder and read back without the script that made it."""

    def save_pretrained(self, directory: str | os.PathLike[str]) -> Path:
        """Write ``config.json`` (constructor arguments, panel, version) and ``model.safetensors``.

        An existing model stays readable until both new files are complete.

        Returns:
            The folder.
        """
        folder = Path(directory)
        config = {"spatiagraph": spatiagraph.__version__, "model": to_config(self)}
        tensors = {k: v.detach().contiguous() for k, v in self.state_dict().items()}
        with replaced_file(folder / CONFIG) as new_config:
            new_config.write_text(json.dumps(config, indent=1))
            with replaced_file(folder / WEIGHTS) as new_weights:
                save_file(tensors, new_weights)
        return folder

    @classmethod
    def from_pretrained(
        cls,
        directory_or_hub_id: str | os.PathLike[str],
        *,
        custom: Mapping[str, type] | None = None,
    ) -> Self:
        """Read a model that :meth:`save_pretrained` wrote.

        Args:
            directory_or_hub_id: A local folder, or the id of a Hugging Face repository
                (``"owner/name"``), which is downloaded.
            custom: Classes outside spatiagraph that the model is made of, by full name.

        Raises:
            ValueError: If there is no model, or it is of another class, or does not fit its
                weights.
        """
        folder = Path(directory_or_hub_id)
        if not folder.is_dir():
            folder = _download(str(directory_or_hub_id))
        for name in (CONFIG, WEIGHTS):
            if not (folder / name).is_file():
                raise ValueError(f"Expected a saved model in {str(folder)!r}, found no {name}")
        try:
            config: dict[str, Any] = json.loads((folder / CONFIG).read_text())["model"]
            tensors = load_file(folder / WEIGHTS)
        except (json.JSONDecodeError, KeyError, SafetensorError) as err:
            raise ValueError(
                f"Expected a saved model in {str(folder)!r}; unreadable: {err}"
            ) from err
        model = from_config(config, custom)
        if not isinstance(model, cls):
            raise ValueError(
                f"Expected a saved {cls.__name__}, found a {type(model).__name__} in "
                f"{str(folder)!r}: load it with that class"
            )
        try:
            model.load_state_dict(tensors)
        except RuntimeError as err:
            raise ValueError(f"The weights in {str(folder)!r} are of another model: {err}") from err
        return model.eval()


def _download(hub_id: str) -> Path:
    if hub_id.count("/") != 1 or hub_id.startswith((".", "/")):
        raise ValueError(f"Expected the folder of a saved model, found none at {hub_id!r}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=[CONFIG, WEIGHTS]))
    except (HfHubHTTPError, LocalEntryNotFoundError) as err:
        raise ValueError(
            f"Expected a folder or a Hugging Face repository, {hub_id!r} is neither: {err}"
        ) from err
