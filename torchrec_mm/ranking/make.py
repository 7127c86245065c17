"""MAKE on batches of requests: its features, and its pre-training as a model of its own."""

from dataclasses import asdict, dataclass

from torch import Tensor, nn

from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.nn.make import Make, MakeFeatures
from torchrec_mm.ranking.outputs import RankingOutputs, click_loss
from torchrec_mm.ranking.vector_view import VectorView


@dataclass(frozen=True, kw_only=True)
class MakeSpec:
    """MAKE's shape, as a run writes it down: the arguments of ``Make``."""

    vector_width: int
    width: int
    hidden: tuple[int, ...]
    dropout: float

    def build(self) -> Make:
        """MAKE of this shape, its weights drawn."""
        return Make(**asdict(self))


def make_features(make: Make, view: VectorView) -> MakeFeatures:
    """What ``make`` says of a batch; an item is projected once, however often it occurs."""
    projected = make.project(view.slots)
    return make.score(
        view.at_targets(projected),
        view.at_behaviours(projected),
        view.cosine(),
        view.target_mask,
        view.behaviour_mask,
    )


class MakeRanker(nn.Module):
    """MAKE as a click model of its own, for its pre-training on click labels."""

    def __init__(self, spec: MakeSpec) -> None:
        super().__init__()
        self.make = spec.build()

    def forward(self, batch: RequestBatch) -> tuple[Tensor, RankingOutputs]:
        """Loss and outputs of one batch."""
        return click_loss(batch, make_features(self.make, VectorView.of(batch)).logit)


def make_spec_from_json(value: dict) -> MakeSpec:
    """The spec that ``dataclasses.asdict`` and JSON made ``value`` of."""
    return MakeSpec(**{**value, "hidden": tuple(value["hidden"])})
