"""First-party packs, known to core whether or not they are installed, so that a message can say how to get
one."""

from __future__ import annotations

from dataclasses import dataclass

#: Whether the packs are on a package index. Until then nobody is told to install a name that anyone could register.
PUBLISHED = False


@dataclass(frozen=True, slots=True)
class Pack:
    """One first-party pack. `state` is ``"available"`` or ``"planned"``; `names` are the bare names it is
    known to bring, so that `--data cifar10` without the pack is answered with the pack and not with
    "unknown"."""

    domain: str
    summary: str
    state: str = "planned"
    names: tuple[str, ...] = ()

    @property
    def distribution(self) -> str:
        """The pip name."""
        return f"peftx-{self.domain}"

    @property
    def folder(self) -> str:
        """Where the pack lives in a clone."""
        return f"plugins/{self.domain}"

    def how_to_get(self) -> str:
        """One clause saying how to install the pack, or that it cannot be had yet."""
        if self.state == "planned":
            return f"{self.distribution} is planned and cannot be installed yet"
        return f"get it with {self.command}"

    @property
    def command(self) -> str:
        """The pip command, and where to give it; naming every local folder keeps pip from looking elsewhere."""
        clone = f"`pip install ./kernels ./core ./{self.folder}` in a clone of peftx"
        return f"`pip install {self.distribution}`, or {clone}" if PUBLISHED else clone


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


CATALOGUE: dict[str, Pack] = {
    pack.domain: pack
    for pack in (
        Pack(
            "vision",
            "image classification: any timm model, a small ViT in the box",
            "available",
            _words(
                "classification digits cifar10 cifar100 cifar mnist fashion_mnist svhn medmnist eurosat dtd "
                "flowers102 oxford_pets food101 vtab fgvc imagefolder snell snella ssf hydra vpt_shallow vpt_deep "
                "adaptertune adaptformer mosa bi_adaptformer bi_lora vit_micro"
            ),
        ),
        Pack("speech", "speech recognition and speaker adaptation"),
        Pack(
            "timeseries",
            "forecasting, classification and anomalies with frozen language models, beside plain rows",
            "available",
            _words(
                "forecasting short_term classification anomaly waves demand months patterns faults etth1 etth2 ettm1 "
                "ettm2 exchange illness weather electricity traffic m4 csv long tsf uea labelled transfer one_for_all "
                "gpt4ts repeat_last seasonal_naive window_mean least_squares dlinear nlinear naive2 majority nearest "
                "rocket zero_reconstruction pca random_score random minilm"
            ),
        ),
        Pack("geo3d", "point clouds, depth and poses"),
        Pack("trajectory", "motion forecasting"),
        Pack("medical", "segmentation and classification of medical images"),
        Pack("continual", "sequences of tasks without forgetting"),
        Pack("language", "language models"),
    )
}


def pack_of(name: str) -> Pack | None:
    """Return the pack that owns `name`: by its domain when dotted, else by a bare name it is known to
    bring."""
    domain, dot, _ = name.partition(".")
    if dot or domain in CATALOGUE:
        return CATALOGUE.get(domain)
    bare = name.partition(":")[0]
    return next((pack for pack in CATALOGUE.values() if bare in pack.names), None)
