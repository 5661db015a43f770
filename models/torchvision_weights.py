"""Torchvision's public weights of the 3D-ResNets, as the installed torchvision describes them."""

from torchvision.models import get_model_weights

from geonorm.models.weights import Recipe, Weights


def of_torchvision(network: str, name: str) -> Recipe:
    """Return the recipe of weights that the installed torchvision describes.

    Args:
        network: "r3d_18", "mc3_18" or "r2plus1d_18".
        name: of the weights in torchvision's enum.
    """
    theirs = get_model_weights(network)[name]
    file = theirs.url.rpartition("/")[2]
    return Recipe(
        network=network,
        file=file,
        url=theirs.url,
        transforms=theirs.transforms,
        licence="BSD-3-Clause, as torchvision; the terms of Kinetics-400 are its own",
        num_classes=len(theirs.meta["categories"]),
        metrics=theirs.meta["_metrics"],
        sha256=file.partition("-")[2].partition(".")[0],  # torch.hub's rule for names of files
        classes=lambda: tuple(theirs.meta["categories"]),
        source=theirs.meta["recipe"],
    )


class R3D_18_Weights(Weights):  # noqa: N801  (as torchvision names its own)
    """Weights of `r3d_18`: torchvision's, trained with batch norm."""

    KINETICS400_V1 = of_torchvision("r3d_18", "KINETICS400_V1")
    DEFAULT = KINETICS400_V1


class MC3_18_Weights(Weights):  # noqa: N801
    """Weights of `mc3_18`: torchvision's, trained with batch norm."""

    KINETICS400_V1 = of_torchvision("mc3_18", "KINETICS400_V1")
    DEFAULT = KINETICS400_V1


class R2Plus1D_18_Weights(Weights):  # noqa: N801
    """Weights of `r2plus1d_18`: torchvision's, trained with batch norm."""

    KINETICS400_V1 = of_torchvision("r2plus1d_18", "KINETICS400_V1")
    DEFAULT = KINETICS400_V1
