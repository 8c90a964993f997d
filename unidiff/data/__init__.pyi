"""The registry of unidiff.data: each name is imported when it is first used."""

from unidiff.data.adapt import as_open_dataset as as_open_dataset
from unidiff.data.array import ArrayFile as ArrayFile
from unidiff.data.base import Dataset as Dataset
from unidiff.data.base import OpenDataset as OpenDataset
from unidiff.data.base import TensorSource as TensorSource
from unidiff.data.captioned import CaptionedDigits as CaptionedDigits
from unidiff.data.captioned_folder import CaptionedFolder as CaptionedFolder
from unidiff.data.celeba import CelebA as CelebA
from unidiff.data.cifar import CIFAR10 as CIFAR10
from unidiff.data.concatenated import Concatenated as Concatenated
from unidiff.data.digits import Digits as Digits
from unidiff.data.folder import ImageFolder as ImageFolder
from unidiff.data.hugging_face import HuggingFaceImages as HuggingFaceImages
from unidiff.data.latent import Latent as Latent
from unidiff.data.mnist import MNIST as MNIST
from unidiff.data.mnist import FashionMNIST as FashionMNIST
from unidiff.data.notes import Notes as Notes
from unidiff.data.sheared import ShearedDigits as ShearedDigits
from unidiff.data.toy import Checkerboard as Checkerboard
from unidiff.data.toy import Ring as Ring
from unidiff.data.toy import Spiral as Spiral
from unidiff.data.toy import TwoMoons as TwoMoons
from unidiff.data.unavailable import Unavailable as Unavailable
