"""Datasets for the command line and for examples; each says where its data came from."""

from relume.datasets.fashion import fashion_mnist
from relume.datasets.folder import FolderImages, image_folder
from relume.datasets.idx import IdxImages
from relume.datasets.load import DataSplit, load
from relume.datasets.pictures import images_below, read_image
from relume.datasets.transform import Augmented, ToTensor
from relume.datasets.vision import cifar10, mnist

__all__ = [
    "Augmented",
    "DataSplit",
    "FolderImages",
    "IdxImages",
    "ToTensor",
    "cifar10",
    "fashion_mnist",
    "image_folder",
    "images_below",
    "load",
    "mnist",
    "read_image",
]
