"""Options of the vision data sets. Torch-free, so that help and validation cost nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "CifarConfig",
    "DigitsConfig",
    "DtdConfig",
    "EuroSatConfig",
    "FgvcConfig",
    "Flowers102Config",
    "ImageFolderConfig",
    "MedMnistConfig",
    "MnistConfig",
    "OfficialConfig",
    "SplitConfig",
    "TrainTestConfig",
    "VtabConfig",
]


class SplitConfig(BaseModel):
    """Options every vision data set shares.

    The split has a seed of its own, apart from the run's `seed`, so that runs of several seeds are trained
    and scored on the same images and differ by training alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    val_fraction: float = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="fraction held out for validation where the source holds none out",
    )
    limit_train: int | None = Field(
        default=None,
        ge=1,
        description="train on this many images only, drawn with the proportions of the classes",
    )
    split_seed: int = Field(
        default=0,
        ge=0,
        description="seed of the split and of limit_train; apart from seed, so runs share the split",
    )


class _TestedConfig(SplitConfig):
    """Both a validation and a test set may have to be held out."""

    test_fraction: float = Field(
        default=0.2, gt=0, lt=1, description="fraction held out for testing where the source holds none out"
    )

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"val_fraction {self.val_fraction:g} and test_fraction {self.test_fraction:g} "
                "leave nothing to train on"
            )
        return self


class DigitsConfig(_TestedConfig):
    """Options of the digits."""


class CifarConfig(SplitConfig):
    """Options of CIFAR-10 and CIFAR-100, whose test set is official."""

    val_fraction: float = Field(
        default=0.1, gt=0, lt=1, description="fraction of the official train set held out for validation"
    )


class MnistConfig(SplitConfig):
    """Options of MNIST and Fashion-MNIST, whose test set is official."""

    val_fraction: float = Field(
        default=0.1, gt=0, lt=1, description="fraction of the official train set held out for validation"
    )
    part: Literal["all", "t10k"] = Field(
        default="all",
        description="t10k: the two official test files alone, with train, val and test drawn from them: a data "
        "set of 10,000 images that compares with no figure on the whole one",
    )
    test_fraction: float = Field(
        default=0.2, gt=0, lt=1, description="fraction held out for testing when part is t10k"
    )

    @model_validator(mode="after")
    def _fractions_fit_the_part(self) -> Self:
        # what was given is compared with the default, since a configuration read back from JSON sets every field
        if self.part == "all" and self.test_fraction != type(self).model_fields["test_fraction"].default:
            raise ValueError("test_fraction is for part t10k: the whole set has an official test set")
        if self.part == "t10k" and self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"val_fraction {self.val_fraction:g} and test_fraction {self.test_fraction:g} "
                "leave nothing to train on"
            )
        return self


class TrainTestConfig(SplitConfig):
    """Options of data sets whose test set is official and whose train set is split here: SVHN, Oxford-IIIT Pet,
    Food-101."""

    val_fraction: float = Field(
        default=0.1, gt=0, lt=1, description="fraction of the official train set held out for validation"
    )


class EuroSatConfig(_TestedConfig):
    """Options of EuroSAT, which has no official split."""


class ImageFolderConfig(_TestedConfig):
    """Options of a folder of images."""

    path: Path = Field(description="folder of train/ and val/ (and test/), or of one folder for each class")
    test_fraction: float = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="fraction held out for testing when the folder has no splits of its own",
    )


class OfficialConfig(BaseModel):
    """Options of data sets whose splits are all official."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit_train: int | None = Field(
        default=None,
        ge=1,
        description="train on this many images only, drawn with the proportions of the classes",
    )
    split_seed: int = Field(
        default=0, ge=0, description="seed of limit_train; apart from seed, so runs share the draw"
    )


class DtdConfig(OfficialConfig):
    """Options of the Describable Textures."""

    fold: int = Field(default=1, ge=1, le=10, description="which of the ten official splits to use")


class Flowers102Config(OfficialConfig):
    """Options of the 102 flowers."""


class MedMnistConfig(OfficialConfig):
    """Options of MedMNIST."""

    flag: str = Field(
        default="pneumoniamnist",
        description="the set, by the name of its file: pathmnist, dermamnist, octmnist, pneumoniamnist, "
        "retinamnist, breastmnist, bloodmnist, tissuemnist, organamnist, organcmnist, organsmnist",
    )
    file: Path | None = Field(
        default=None,
        description="another .npz of the same form, not held to the official checksum",
    )


class VtabConfig(OfficialConfig):
    """Options of a task of VTAB-1k."""

    path: str = Field(
        description="the task: cifar, caltech101, dtd, oxford_flowers102, oxford_iiit_pet, svhn, sun397; "
        "patch_camelyon, eurosat, resisc45, diabetic_retinopathy; clevr_count, clevr_dist, dmlab, kitti, "
        "dsprites_loc, dsprites_ori, smallnorb_azi, smallnorb_ele"
    )
    split: Literal["tune", "final"] = Field(
        default="final",
        description="tune: train on 800 and validate on 200, to choose hyperparameters; final: train on all "
        "1,000, keep the last epoch and score the test set",
    )


class FgvcConfig(OfficialConfig):
    """Options of a set of FGVC."""

    path: str = Field(description="the set: cub, nabirds, flowers, dogs, cars")
