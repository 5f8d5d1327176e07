"""An objective in one file: a masked autoencoder by absolute errors."""

from torch import Tensor

from miram.kinds import Drawing, Objective
from miram.models.mae import MAE


class Absolute(MAE):
    def lowres_step(self, patches: Tensor, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        predicted = self.lowres(tokens)
        return (predicted - patches).abs().mean(), predicted


ENTRY = Objective(f"{__name__}:Absolute", ("decoder", "mask_ratio", "loss_on"), True, Drawing("#117733", "h"))
