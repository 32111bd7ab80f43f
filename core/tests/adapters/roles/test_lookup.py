"""Finding families in a model: nesting, swapped classes, copies, attached adapters, tables of one's own."""

from __future__ import annotations

import copy
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from peftx.adapters.roles import (
    Head,
    RoleTable,
    Rule,
    group_of,
    head_of,
    parameter_roles_of,
    register_table,
    roles_of,
    tables,
)
from peftx.adapters.roles import registry as registry_module
from peftx.errors import ConfigError


def encoder() -> nn.TransformerEncoder:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)


class Mine(nn.Module):
    """A user's model: a known family below, an own head beside it."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(16, 3)


def test_a_family_inside_a_bigger_module():
    hits = roles_of(Mine(encoder()))
    assert hits["trunk.layers.0.linear1"].role == "mlp.up"
    assert hits["trunk.layers.0.linear1"].family == "torch-transformer"
    assert group_of("trunk.layers.0.linear1", hits["trunk.layers.0.linear1"]) == "trunk.layers.0.mlp"
    assert hits["head"].role == "other", "a layer called head is not a head unless the model says so"
    assert group_of("head", hits["head"]) == "head"


def test_a_subclass_and_a_swapped_class_are_still_known():
    model = Mine(encoder())
    before = roles_of(model)
    for module in list(model.modules()):
        cls = type(module)
        module.__class__ = type(cls.__name__, (cls,), {"__module__": "somewhere.else"})
    assert roles_of(model) == before
    assert roles_of(copy.deepcopy(model)) == before


def test_attached_adapters_are_not_part_of_the_model():
    from peftx.adapters.roles.lookup import RESERVED

    slot = pytest.importorskip("peftx.adapters.slot")
    assert (slot.SLOT, slot.BANK) == RESERVED
    model = Mine(encoder())
    before, loose = roles_of(model), parameter_roles_of(model)
    adapter = type("Slot", (nn.Module,), {"__module__": "peftx.adapters.slot"})()
    adapter.add_module("inner", nn.Linear(2, 2))
    adapter.register_parameter("theta", nn.Parameter(torch.zeros(1)))
    for module in (model, model.head, model.trunk.layers[0].self_attn):
        module.add_module(slot.SLOT, adapter)
    model.add_module(slot.BANK, nn.ModuleDict({"default": nn.Linear(2, 2)}))
    assert roles_of(model) == before
    assert parameter_roles_of(model) == loose


def test_paths_and_order_are_those_of_named_modules():
    model = Mine(encoder())
    model.again = model.head  # one module under two names counts once, under the first
    hits = roles_of(model)
    assert list(hits) == [path for path, _ in model.named_modules() if path in hits]
    assert "again" not in hits


@pytest.fixture
def own_table():
    before = list(registry_module._registered)
    yield
    registry_module._registered[:] = before


def test_a_table_of_ones_own(own_table):
    table = RoleTable(
        family="mine",
        roots=(rf"{Mine.__module__}\.Mine",),
        rules=(Rule(r"trunk\.layers\.(?P<block>\d+)\.linear1", "mlp.gate"), Rule(r"trunk\.norm", "norm")),
        heads=(Head((rf"{Mine.__module__}\.Mine",), ("head",)),),
        note="example",
    )
    assert register_table(table) is table
    model = Mine(encoder())
    assert head_of(model) == ("head",)
    hits = roles_of(model)
    assert (hits["head"].role, hits["head"].family) == ("head", "mine")
    # a family around a building block has the first word, the block's own table answers for the rest
    assert (hits["trunk.layers.0.linear1"].role, hits["trunk.layers.0.linear1"].family) == (
        "mlp.gate",
        "mine",
    )
    assert hits["trunk.layers.0.linear2"].family == "torch-transformer"
    # registering the family again replaces it
    register_table(RoleTable("mine", table.roots, (Rule("head", "projection"),)))
    assert sum(known.family == "mine" for known in tables()) == 1
    assert roles_of(model)["head"].role == "projection"
    assert head_of(model) == ()


def test_the_innermost_family_answers_first(own_table):
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = Mine(nn.Identity())

    register_table(RoleTable("outer", (rf"{Outer.__module__}\..*Outer",), (Rule(r".*", "conv"),)))
    register_table(RoleTable("inner", (rf"{Mine.__module__}\.Mine",), (Rule(r"head", "projection"),)))
    assert roles_of(Outer())["inside.head"].family == "inner"


def test_a_model_may_declare_its_head():
    model = Mine(encoder())
    model.peftx_head = "head"
    assert head_of(model) == ("head",)
    assert roles_of(model)["head"].role == "head"
    assert head_of(nn.Sequential(model, nn.Linear(3, 3))) == ("0.head",)
    model.peftx_head = ()
    assert head_of(model) == ()


def test_the_head_of_an_inner_model_is_not_the_head_of_the_outer_one():
    inner = Mine(encoder())
    inner.peftx_head = "head"
    outer = Mine(inner)
    assert head_of(outer) == ("trunk.head",)
    outer.peftx_head = "head"
    assert head_of(outer) == ("head",)
    assert roles_of(outer)["trunk.head"].role == "other"


def test_a_plain_model_has_no_head():
    assert head_of(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))) == ()
    assert head_of(nn.Linear(4, 4)) == ()


def test_bad_tables_are_refused_when_they_are_built():
    with pytest.raises(ConfigError, match=r"'attention\.qq', which is not in the vocabulary.*Did you mean"):
        Rule("x", "attention.qq")
    with pytest.raises(ConfigError, match="not in the vocabulary"):
        Rule("x", "attention.qkv", ("q", "keys"))
    with pytest.raises(ConfigError, match="not a regular expression"):
        Rule("(", "norm")
    with pytest.raises(ConfigError, match="not a regular expression"):
        RoleTable("x", ("[",), ())


def test_built_in_families_have_distinct_names():
    names = [table.family for table in tables()]
    assert len(set(names)) == len(names)


def test_parameters_no_table_knows():
    class Loose(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
            self.pos_embedding = nn.Parameter(torch.zeros(1, 5, 4))
            self.mystery = nn.Parameter(torch.zeros(4))

    hits = parameter_roles_of(nn.Sequential(Loose()))
    assert {path: hit.role for path, hit in hits.items()} == {
        "0.cls_token": "embedding.class",
        "0.pos_embedding": "embedding.position",
        "0.mystery": "other",
    }


def test_the_files_of_this_folder_import_no_model_library(tmp_path):
    """Run in a fresh interpreter, with the room above replaced: its own imports are not this folder's business."""
    import peftx.adapters.roles as roles

    code = (
        "import sys, types\n"
        "room = types.ModuleType('peftx.adapters'); room.__path__ = [sys.argv[1]]\n"
        "import peftx; sys.modules['peftx.adapters'] = room\n"
        "import peftx.adapters.roles as roles; assert roles.roles_of\n"
        "found = {'torch', 'timm', 'transformers', 'whisper', 'open_clip', 'numpy'} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    folder = str(SimpleNamespace(path=roles.__path__[0]).path).rsplit("/roles", 1)[0]
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
