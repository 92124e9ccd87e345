"""FLOPs of a token of training text. With supervised share s, body B parameters, head H = V d, sets
of mean size K, E epochs: full 6 (B + s H), Stage 1 6 B + 6 s d K, Stage 0 2 (B + s H) / E.

Left out: attention's quadratic part, norms, the optimizer, Stage 0's softmax and sort."""

from lrmoclip.data.batches import Encoded
from lrmoclip.methods import Method, Need
from lrmoclip.models.shapes import Shape


def supervised_share(data: Encoded) -> float:
    """Supervised positions over tokens fed."""
    return int(data.supervised.sum()) / data.tokens


def head_share(shape: Shape, share: float) -> float:
    """Share of a full step's FLOPs that the vocabulary projection takes."""
    return share * shape.head / (shape.body + share * shape.head)


def training(
    method: Method, shape: Shape, share: float, set_size: float, refreshed: float = 0.0
) -> float:
    """FLOPs a token of a method's steps, the frozen base's pass included where it needs one.
    refreshed: tokens of which Stage 0 is collected again, for each token trained on."""
    head = share * method.objective.products(shape, set_size)
    beside = (Need.BASE in method.needs) + refreshed
    return method.adapter.passes * (shape.body + head) + beside * forward(shape, share)


def forward(shape: Shape, share: float) -> float:
    """FLOPs a token of a forward pass that projects the supervised share."""
    return 2 * (shape.body + share * shape.head)
