"""MIRAM: a masked autoencoder with a second decoder, which reconstructs the image at a multiple of the input's side."""

from torch import Tensor
from torch.nn import functional as F

from miram.models.attention import build_stack
from miram.models.encoder import Encoder
from miram.models.mae import MAE, MaskedOutput, PatchDecoder
from miram.models.patches import enlarge_tokens, patch_errors, patchify
from miram.recipe import Decoder, Highres


class MIRAM(MAE):
    """Two-scale masked autoencoder (arXiv 2503.07157; Hung304-WBLEM/mae).

    The second decoder takes the tokens of the first before positions are added, repeats each scale x scale times in
    space, and predicts every patch of the high-resolution image. Its target is "upsampled", the input enlarged by
    nearest neighbour (public code), or "native", a separate image.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        decoder: Decoder,
        highres: Highres,
        mask_ratio: float,
        loss_on: str,
        attention: str,
        backend: str | None,
        options: dict[str, int | str] | None,
    ) -> None:
        super().__init__(encoder, decoder=decoder, mask_ratio=mask_ratio, loss_on=loss_on)
        self.scale, self.target = highres.scale, highres.target
        grid = highres.scale * encoder.grid
        stack = build_stack(
            attention,
            backend=backend,
            dim=decoder.width,
            depth=decoder.depth,
            heads=decoder.heads,
            tokens=1 + grid**2,
            **(options or {}),
        )
        self.highres = PatchDecoder(stack, width=decoder.width, grid=grid, values=encoder.patch**2 * encoder.channels)

    def _target_patches(self, images: Tensor, native: Tensor | None) -> Tensor:
        """Patches of the high-resolution image; of the enlarged input at the input's resolution if the scale allows."""
        patch = self.encoder.patch
        if (native is not None) != (self.target == "native"):
            raise ValueError(f"target {self.target!r} takes {'a' if native is None else 'no'} native image")
        if native is not None:
            side = self.scale * self.encoder.side
            expected = (self.encoder.channels, side, side)
            if native.shape[1:] != expected:
                raise ValueError(f"native images of shape {tuple(native.shape[1:])}; this model takes {expected}")
            return patchify(native, patch)
        if patch % self.scale == 0:
            return patchify(images, patch // self.scale)
        return patchify(F.interpolate(images, scale_factor=self.scale, mode="nearest"), patch)

    def forward(self, images: Tensor, noise: Tensor, native: Tensor | None = None) -> MaskedOutput:
        """Images (B, C, side, side), noise (B, L), and for the target "native" images of side scale·side."""
        patches = self.encoder.patchify(images)
        tokens, mask = self.decoder_tokens(patches, noise)
        lowres_loss, lowres_pred = self.lowres_step(patches, tokens, mask)
        highres_pred = self.highres(enlarge_tokens(tokens, self.scale))
        highres_errors = patch_errors(highres_pred, self._target_patches(images, native), self.encoder.channels)
        return MaskedOutput(lowres_loss + highres_errors.mean(), lowres_pred, highres_pred, mask)
