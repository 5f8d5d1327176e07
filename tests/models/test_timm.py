import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch

from miram.models import _timm


def test_timm_is_imported_without_importing_torchvision_first() -> None:
    code = "import miram.models._timm as m; m.create_model('vit_tiny_patch16_224', img_size=32, num_classes=0)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize("works", [True, False])
def test_schemas_are_declared_only_beside_an_extension_that_does_not_load(
    works: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(path: Path) -> None:
        tried.append(path)
        if not works:
            raise OSError("undefined symbol")

    tried: list[Path] = []
    (tmp_path / "_C.so").touch()
    spec = ModuleSpec("torchvision", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(_timm.importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(torch.ops, "load_library", load)
    assert _timm._extension_loads() is works
    assert tried == [tmp_path / "_C.so"]
