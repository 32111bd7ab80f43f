from __future__ import annotations

import json
import subprocess
import sys

import peftx_kernels


def test_import_leaves_torch_alone() -> None:
    code = "import sys, json, peftx_kernels; print(json.dumps(sorted(sys.modules)))"
    modules = json.loads(
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    )
    assert "peftx_kernels.table" in modules
    assert not {"torch", "numpy", "triton", "peftx"} & set(modules)


def test_public_names_are_sorted_and_exist() -> None:
    assert peftx_kernels.__all__ == sorted(peftx_kernels.__all__)
    for name in peftx_kernels.__all__:
        assert getattr(peftx_kernels, name) is not None
    assert set(peftx_kernels.__all__) <= set(dir(peftx_kernels))


def test_ops_stay_functions_after_their_folders_are_imported() -> None:
    import peftx_kernels.ops.lora_linear.op  # a folder called like its op must not shadow it

    assert callable(peftx_kernels.lora_linear)
    assert not hasattr(peftx_kernels, "no_such_op")
