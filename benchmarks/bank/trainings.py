"""The bank's pre-training: eleven methods, each a loss on batches of two views.

They are the fixtures' losses where these have them. Training is short: what counts here is that
the encoders differ, as those of other people do.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from encodercheck.fixtures.network import normalise
from encodercheck.fixtures.pretraining.byol import regression
from encodercheck.fixtures.pretraining.moco import follow, info_nce
from encodercheck.fixtures.pretraining.simclr import nt_xent
from encodercheck.fixtures.views import augment

CLASSES = 10
PROJECTION = 64
QUEUE = 512
# A masked autoencoder hides so many of the image's 8x8 fields, and draws 16x16 pixels.
HIDDEN_SHARE = 0.6
DRAWN_SIDE = 16


def mlp(inputs: int, outputs: int, hidden: int = 96) -> nn.Module:
    """Return two layers with BatchNorm between."""
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )


@dataclass
class Batch:
    """Images (N, 3, H, W) in [0, 1], two views of each, labels (N,), and a generator."""

    images: Tensor
    first: Tensor
    second: Tensor
    labels: Tensor
    generator: torch.Generator


class Method:
    """A pre-training method: modules trained beside the network, and the loss of a batch."""

    def __init__(self, network: nn.Module, dim: int) -> None:
        self.network, self.dim = network, dim
        self.head: nn.Module = nn.Identity()

    def loss(self, batch: Batch) -> Tensor:
        """Return what is minimised."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Do what follows a step."""

    def both(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the head's outputs for both views, in one pass."""
        views = normalise(torch.cat([batch.first, batch.second]))
        first, second = self.head(self.network(views)).chunk(2)
        return first, second


class SimCLR(Method):
    """SimCLR (Chen et al., ICML 2020), with a projection head."""

    temperature = 0.5

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__(network, dim)
        self.head = mlp(dim, PROJECTION)

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch."""
        return nt_xent(*self.both(batch), self.temperature)


class Headless(Method):
    """SimCLR without a head: the loss compares embeddings themselves."""

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch."""
        return nt_xent(*self.both(batch), 0.3)


class Barlow(SimCLR):
    """Barlow Twins (Zbontar et al., ICML 2021)."""

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch."""
        first, second = ((z - z.mean(0)) / (z.std(0) + 1e-4) for z in self.both(batch))
        cross = first.T @ second / len(first)
        on = (cross.diagonal() - 1).square().sum()
        off = cross.square().sum() - cross.diagonal().square().sum()
        return (on + 0.02 * off) / PROJECTION


class MoCo(Method):
    """MoCo (He et al., CVPR 2020)."""

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__(network, dim)
        self.head = mlp(dim, PROJECTION)
        self.leader = nn.Sequential(network, self.head)
        self.follower = deepcopy(self.leader).requires_grad_(False)
        self.queue = functional.normalize(torch.randn(QUEUE, PROJECTION), dim=1)

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch."""
        queries = self.leader(normalise(batch.first))
        with torch.no_grad():
            keys = self.follower(normalise(batch.second))
        loss = info_nce(queries, keys, self.queue, 0.2)
        self.queue = torch.cat([functional.normalize(keys, dim=1), self.queue])[:QUEUE]
        return loss

    def after_step(self) -> None:
        """Let the follower follow."""
        follow(self.follower, self.leader, 0.98)


class Byol(Method):
    """BYOL (Grill et al., NeurIPS 2020)."""

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__(network, dim)
        projector, self.predictor = mlp(dim, PROJECTION), mlp(PROJECTION, PROJECTION)
        self.leader = nn.Sequential(network, projector)
        self.follower = deepcopy(self.leader).requires_grad_(False)
        self.head = nn.ModuleList([projector, self.predictor])

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch."""
        first, second = normalise(batch.first), normalise(batch.second)
        with torch.no_grad():
            targets = self.follower(second), self.follower(first)
        own = [self.predictor(self.leader(view)) for view in (first, second)]
        return sum((regression(p, t) for p, t in zip(own, targets, strict=True)), torch.zeros(()))

    def after_step(self) -> None:
        """Let the follower follow."""
        follow(self.follower, self.leader, 0.97)


class Dino(Method):
    """Self-distillation by centred, sharpened soft assignments (Caron et al., ICCV 2021)."""

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__(network, dim)
        self.head = mlp(dim, 2 * PROJECTION)
        self.leader = nn.Sequential(network, self.head)
        self.follower = deepcopy(self.leader).requires_grad_(False)
        self.centre = torch.zeros(2 * PROJECTION)

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch."""
        first, second = normalise(batch.first), normalise(batch.second)
        with torch.no_grad():
            targets = self.follower(torch.cat([second, first]))
            soft = ((targets - self.centre) / 0.06).softmax(1)
            self.centre = 0.9 * self.centre + 0.1 * targets.mean(0)
        logits = self.leader(torch.cat([first, second])) / 0.1
        return functional.cross_entropy(logits, soft)

    def after_step(self) -> None:
        """Let the follower follow."""
        follow(self.follower, self.leader, 0.97)


class Masked(Method):
    """Draws the image from the embedding of one with fields hidden, after He et al., CVPR 2022."""

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__(network, dim)
        self.head = nn.Sequential(nn.Linear(dim, 256), nn.GELU(), nn.Linear(256, 3 * DRAWN_SIDE**2))

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch."""
        images = batch.first
        fields = torch.rand(len(images), 1, 8, 8, generator=batch.generator) > HIDDEN_SHARE
        shown = functional.interpolate(fields.float(), images.shape[-1])
        drawn = self.head(self.network(normalise(images * shown + 0.5 * (1 - shown))))
        wanted = functional.interpolate(images, DRAWN_SIDE, mode="bilinear", antialias=True)
        return 10 * functional.mse_loss(drawn, wanted.flatten(1))


class Supervised(Method):
    """Training on the labels."""

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__(network, dim)
        self.head = nn.Linear(dim, CLASSES)

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch."""
        return functional.cross_entropy(
            self.head(self.network(normalise(batch.first))), batch.labels
        )


class Clip(Method):
    """Images against captions (Radford et al., 2021): a word for the label and one of chance."""

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__(network, dim)
        self.words = nn.Embedding(CLASSES + 8, PROJECTION)
        self.image, self.text = nn.Linear(dim, PROJECTION), mlp(PROJECTION, PROJECTION)
        self.head = nn.ModuleList([self.words, self.image, self.text])

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch."""
        images = self.image(self.network(normalise(batch.first)))
        # What the second word says is in the picture as well: how light it is.
        light = (batch.images.mean((1, 2, 3)) * 8).long().clamp(max=7) + CLASSES
        texts = self.text(self.words(batch.labels) + self.words(light))
        images, texts = (functional.normalize(z, dim=1) for z in (images, texts))
        logits = images @ texts.T / 0.1
        own = torch.arange(len(logits))
        return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


class Distilled(Method):
    """Learns a random deeper network's features, through a linear map."""

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__(network, dim)
        self.teacher = nn.Sequential(
            nn.Conv2d(3, 32, 5, 2, 2),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(64, 128, 3, 2, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        ).requires_grad_(False)
        self.head = nn.Linear(dim, 512)

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch."""
        views = normalise(batch.first)
        wanted = self.teacher(views)
        wanted = (wanted - wanted.mean(0)) / (wanted.std(0) + 1e-4)
        return functional.mse_loss(self.head(self.network(views)), wanted)


METHODS: dict[str, Callable[[nn.Module, int], Method] | None] = {
    "SimCLR": SimCLR,
    "SimCLR without head": Headless,
    "MoCo": MoCo,
    "BYOL": Byol,
    "DINO-like": Dino,
    "Barlow Twins": Barlow,
    "MAE-like": Masked,
    "CLIP-like": Clip,
    "supervised": Supervised,
    "distilled": Distilled,
    "untrained": None,
    "ImageNet": None,
    "the web": None,
}


def train(
    network: nn.Module,
    method: str,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int,
    batch: int,
    seed: int,
    learning_rate: float,
) -> nn.Module:
    """Train in place on images (N, 3, H, W) in [0, 1] by Adam with a cosine schedule."""
    made = METHODS[method]
    if made is None:
        return network.eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network.eval()
        with torch.no_grad():
            dim = network(normalise(images[:2])).shape[1]
        own = made(network.train(), dim)
        own.head.train()
        parameters = [*network.parameters(), *own.head.parameters()]
        optimizer = torch.optim.AdamW(parameters, learning_rate, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            chosen = torch.randint(len(images), (batch,), generator=generator)
            some = images[chosen]
            smallest = 0.4
            views = [augment(some, generator, smallest=smallest) for _ in range(2)]
            loss = own.loss(Batch(some, *views, labels[chosen], generator))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 5.0)
            optimizer.step()
            schedule.step()
            own.after_step()
    return network.eval()
