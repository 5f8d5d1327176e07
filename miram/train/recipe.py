"""What decides the weights that pre-training ends with."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from miram import kinds
from miram.errors import MiramError
from miram.files import sha256_file
from miram.models.build import build_pretrainer
from miram.provenance.record import code_digest


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A method's values; names, units and sources as in params.yaml. None: the objective does not read it."""

    objective: str
    encoder: dict
    seed: int
    side: int
    batch: int  # images per optimiser step, over all micro-batches and devices
    accumulate: int
    epochs: int
    warmup_epochs: int
    lr_per_256: float
    weight_decay: float
    beta1: float
    beta2: float
    crop_scale_min: float
    precision: str
    compile: bool
    recompute: bool
    encoder_init: str | None
    mask_ratio: float | None = None
    loss_on: str | None = None
    decoder: dict | None = None
    highres: dict | None = None
    attention: str | None = None
    backend: str | None = None
    options: dict | None = None
    moco: dict | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The recipe among the values of the stage `pretrain`, which also say where it is computed."""
        return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls) if field.name in values})

    @property
    def name(self) -> str:
        """Objective and attention, for messages."""
        return "-".join(filter(None, (self.objective, self.attention)))

    @property
    def masked(self) -> bool:
        """Whether the model rebuilds removed patches; otherwise it is given two views of an image."""
        return kinds.is_masked(self.objective)

    @property
    def lr(self) -> float:
        """Peak learning rate: `lr_per_256` is meant for a batch of 256."""
        return self.lr_per_256 * self.batch / 256

    @property
    def patches(self) -> int:
        """Patches of an input image."""
        return (self.side // self.encoder["patch"]) ** 2

    @property
    def native_scale(self) -> int | None:
        """Side of the native high-resolution image / side of the input; None where the target is not native."""
        return self.highres["scale"] if self.highres and self.highres["target"] == "native" else None

    @property
    def view_side(self) -> int:
        """Side of a view in px: that of the input, or of the native high-resolution image."""
        return self.side * (self.native_scale or 1)

    @property
    def moco_views(self) -> list[dict[str, float]]:
        """The keywords of `augment.draw_moco_view` for the first and for the second view."""
        shared = {name: value for name, value in self.moco.items() if name.startswith(("jitter_", "blur_sigma_"))}
        blur, solarise = self.moco["blur_probabilities"], self.moco["solarise_probabilities"]
        return [
            {**shared, "blur_probability": p_blur, "solarise_probability": p_solarise}
            for p_blur, p_solarise in zip(blur, solarise, strict=True)
        ]

    def fingerprint(self, crops_digest: str) -> str:
        """What decides the weights, as text: training goes on from a checkpoint of the same recipe, crops and code."""
        made_by = {"crops": crops_digest, "code": code_digest("pretrain"), "torch": torch.__version__}
        if self.encoder_init:
            made_by["encoder_init_sha256"] = sha256_file(Path(self.encoder_init))
        return json.dumps({**dataclasses.asdict(self), **made_by}, sort_keys=True)

    def random_inputs(self, images: int, device: str) -> list[Tensor | float]:
        """The arguments of the model for one step on so many random images."""
        shape = images, self.encoder["channels"], self.side, self.side
        if not self.masked:
            return [*torch.randn(2, *shape, device=device), self.moco["momentum"]]
        inputs = [torch.randn(shape, device=device), torch.rand(images, self.patches, device=device)]
        if self.native_scale:
            inputs.append(torch.randn(*shape[:2], self.view_side, self.view_side, device=device))
        return inputs

    def build(self) -> nn.Module:
        """The model that is pre-trained: drawn from torch's generator, its encoder from `encoder_init` if given.

        Raises MiramError on values, or a file, that do not fit.
        """
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        try:
            return build_pretrainer(**values)
        except ValueError as error:
            raise MiramError(f"The model cannot be built: {error}.", "Change that value in params.yaml.") from error
