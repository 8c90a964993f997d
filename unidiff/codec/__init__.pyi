"""The registry of unidiff.codec: each name is imported when it is first used."""

from unidiff.codec.autoencoders import AutoencoderConfig as AutoencoderConfig
from unidiff.codec.autoencoders import AutoencoderDC as AutoencoderDC
from unidiff.codec.autoencoders import AutoencoderKL as AutoencoderKL
from unidiff.codec.autoencoders import AutoencoderTiny as AutoencoderTiny
from unidiff.codec.autoencoders import VQModel as VQModel
from unidiff.codec.codec import Autoencoder as Autoencoder
from unidiff.codec.codec import CodecInTraining as CodecInTraining
from unidiff.codec.folder import load_codec as load_codec
from unidiff.codec.objective import AbsoluteError as AbsoluteError
from unidiff.codec.objective import CodecObjective as CodecObjective
from unidiff.codec.objective import Commitment as Commitment
from unidiff.codec.objective import PixelError as PixelError
from unidiff.codec.objective import Reconstruction as Reconstruction
from unidiff.codec.objective import SquaredError as SquaredError
from unidiff.codec.objective import Variational as Variational
from unidiff.codec.statistics import measure_latents as measure_latents
