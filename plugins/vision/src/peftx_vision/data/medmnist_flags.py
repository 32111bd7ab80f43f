"""The sets of MedMNIST v2 by flag: names of the classes, counts, and the MD5 of the official file.

J. Yang et al., "MedMNIST v2: A Large-Scale Lightweight Benchmark for 2D and 3D Biomedical Image Classification",
arXiv:2110.14795; figures as in `medmnist/info.py` of version 2.1.0, https://github.com/MedMNIST/MedMNIST.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FLAGS", "MULTI_LABEL", "VOLUMES", "Flag"]


@dataclass(frozen=True, slots=True)
class Flag:
    """One set. `counts`: images in train, val and test; `channels`: 1 (grey) or 3 (colour)."""

    classes: tuple[str, ...]
    counts: tuple[int, int, int]
    channels: int
    md5: str


_ORGANS = (
    "bladder",
    "femur-left",
    "femur-right",
    "heart",
    "kidney-left",
    "kidney-right",
    "liver",
    "lung-left",
    "lung-right",
    "pancreas",
    "spleen",
)

#: The sets of images with one label each.
FLAGS: dict[str, Flag] = {
    "pathmnist": Flag(
        (
            "adipose",
            "background",
            "debris",
            "lymphocytes",
            "mucus",
            "smooth muscle",
            "normal colon mucosa",
            "cancer-associated stroma",
            "colorectal adenocarcinoma epithelium",
        ),
        (89_996, 10_004, 7_180),
        3,
        "a8b06965200029087d5bd730944a56c1",
    ),
    "dermamnist": Flag(
        (
            "actinic keratoses and intraepithelial carcinoma",
            "basal cell carcinoma",
            "benign keratosis-like lesions",
            "dermatofibroma",
            "melanoma",
            "melanocytic nevi",
            "vascular lesions",
        ),
        (7_007, 1_003, 2_005),
        3,
        "0744692d530f8e62ec473284d019b0c7",
    ),
    "octmnist": Flag(
        ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
        (97_477, 10_832, 1_000),
        1,
        "c68d92d5b585d8d81f7112f81e2d0842",
    ),
    "pneumoniamnist": Flag(("normal", "pneumonia"), (4_708, 524, 624), 1, "28209eda62fecd6e6a2d98b1501bb15f"),
    "retinamnist": Flag(tuple("01234"), (1_080, 120, 400), 3, "bd4c0672f1bba3e3a89f0e4e876791e4"),
    "breastmnist": Flag(
        ("malignant", "normal, benign"), (546, 78, 156), 1, "750601b1f35ba3300ea97c75c52ff8f6"
    ),
    "bloodmnist": Flag(
        (
            "basophil",
            "eosinophil",
            "erythroblast",
            "immature granulocytes(myelocytes, metamyelocytes and promyelocytes)",
            "lymphocyte",
            "monocyte",
            "neutrophil",
            "platelet",
        ),
        (11_959, 1_712, 3_421),
        3,
        "7053d0359d879ad8a5505303e11de1dc",
    ),
    "tissuemnist": Flag(
        (
            "Collecting Duct, Connecting Tubule",
            "Distal Convoluted Tubule",
            "Glomerular endothelial cells",
            "Interstitial endothelial cells",
            "Leukocytes",
            "Podocytes",
            "Proximal Tubule Segments",
            "Thick Ascending Limb",
        ),
        (165_466, 23_640, 47_280),
        1,
        "ebe78ee8b05294063de985d821c1c34b",
    ),
    "organamnist": Flag(_ORGANS, (34_581, 6_491, 17_778), 1, "866b832ed4eeba67bfb9edee1d5544e6"),
    "organcmnist": Flag(_ORGANS, (13_000, 2_392, 8_268), 1, "0afa5834fb105f7705a7d93372119a21"),
    "organsmnist": Flag(_ORGANS, (13_940, 2_452, 8_829), 1, "e5c39f1af030238290b9557d9503af9d"),
}

#: Sets whose images have several labels at once.
MULTI_LABEL = ("chestmnist",)

#: Sets of volumes.
VOLUMES = (
    "organmnist3d",
    "nodulemnist3d",
    "adrenalmnist3d",
    "fracturemnist3d",
    "vesselmnist3d",
    "synapsemnist3d",
)
