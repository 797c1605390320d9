import pytest
import torch
from torch import nn

from spatiagraph._config import from_config, to_config
from spatiagraph.nn import Configurable, GateFusion, GeneEncoder
from spatiagraph.nn.cell import CellEncoder


class Outside(Configurable):
    def __init__(self, size: int, *extra: int, **kwargs: int):
        super().__init__()
        self.linear = nn.Linear(size, size)


def test_config_rebuilds_a_tree_of_modules():
    encoder = CellEncoder(GeneEncoder(6, 8, hidden_channels=4), fusion=GateFusion(8))
    again = from_config(to_config(encoder))
    assert str(again) == str(encoder)
    again.load_state_dict(encoder.state_dict())


def test_config_imports_only_this_package_unless_told():
    config = to_config(Outside(3))
    with pytest.raises(ValueError, match="pass custom="):
        from_config(config)
    assert isinstance(from_config(config, {config["class"]: Outside}), Outside)


def test_config_names_what_it_cannot_describe():
    with pytest.raises(ValueError, match="got Linear: derive it from"):
        to_config(CellEncoder(nn.Linear(3, 3)))


def test_config_is_plain_json_values():
    config = to_config({"a": (1, 2.0, None), "b": torch.nn.Identity is None})
    assert config == {"a": [1, 2.0, None], "b": False}
