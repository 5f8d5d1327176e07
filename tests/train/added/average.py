"""An attention kind in one file: every token receives the mean of all tokens."""

from functools import partial

from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from miram.kinds import STRICT, Attention, Count, Drawing
from miram.models.attention.blocks import FeedForward, Stack


@dataclass(frozen=True, config=STRICT)
class Options:
    rank: Count


class Average(nn.Module):
    def __init__(self, dim: int, rank: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(dim, rank), nn.Linear(rank, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x).mean(1, keepdim=True)).expand_as(x)


def build(*, backend: str | None, dim: int, depth: int, heads: int, tokens: int, rank: int) -> nn.Module:
    return Stack(dim, depth, partial(Average, dim, rank), partial(FeedForward, dim, ("w1", "w2")))


ENTRY = Attention(f"{__name__}:build", Options, Drawing("#332288", "p"), first_layer="layers.0.0.fn")
