"""Exchange: bundles go to a folder, an object store or the Hugging Face Hub, and come back the same to the last byte."""

from relume.share.exchange.pulling import Pulled, pull
from relume.share.exchange.pushing import Pushed, push

__all__ = ["Pulled", "Pushed", "pull", "push"]
