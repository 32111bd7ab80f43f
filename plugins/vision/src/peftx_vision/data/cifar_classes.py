"""The official class lists of CIFAR, in label order (``batches.meta``, ``fine_label_names`` of ``meta``)."""

from __future__ import annotations

__all__ = ["CIFAR10_CLASSES", "CIFAR100_CLASSES"]

_TEN = "airplane automobile bird cat deer dog frog horse ship truck"

_HUNDRED = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel
can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur
dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion
lizard lobster man maple motorcycle mountain mouse mushroom oak orange orchid otter palm pear
pickup_truck pine plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark
shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
television tiger tractor train trout tulip turtle wardrobe whale willow wolf woman worm
"""

CIFAR10_CLASSES = tuple(_TEN.split())
CIFAR100_CLASSES = tuple(_HUNDRED.split())
