"""Whether features are worth computing: their time and room against the forward passes that they save."""

from __future__ import annotations

from dataclasses import dataclass

from relume.data.memory import NotEligible

READ_BYTES_A_SECOND = 2e9
WRITE_BYTES_A_SECOND = 3e8
_LEAST_SECONDS = 0.1


class NoGain(NotEligible):
    """Features could be had, and are not worth their time."""


@dataclass
class Estimate:
    """What caching costs and saves.

    Attributes:
        epochs: how many epochs will read the features.
        samples, views: how many there are; each view is computed once.
        is_asked: ``cache_features=True``: the estimate is said and decides nothing.
        sample_seconds: of the lower part's forward pass, loading included; measured.
        size_bytes: of all features.
    """

    epochs: int
    samples: int
    views: int = 1
    is_asked: bool = False
    sample_seconds: float = 0.0
    size_bytes: int = 0
    is_kept: bool = False

    def learn(self, sample_seconds: float, size_bytes: int, *, is_kept: bool) -> None:
        """Take in what was measured on the first samples."""
        self.sample_seconds, self.size_bytes, self.is_kept = sample_seconds, size_bytes, is_kept

    @property
    def pass_seconds(self) -> float:
        """One pass of all samples through the lower part."""
        return self.sample_seconds * self.samples

    @property
    def saved_seconds(self) -> float:
        """What is saved in all; below 0 where caching costs more."""
        reading = self.epochs * self.size_bytes / self.views / READ_BYTES_A_SECOND
        writing = self.size_bytes / WRITE_BYTES_A_SECOND if self.is_kept else 0.0
        return (self.epochs - self.views) * self.pass_seconds - reading - writing

    def require_gain(self) -> None:
        """
        Raises:
            NoGain: too little is saved; says how much.
        """
        if not self.is_asked and self.saved_seconds < _LEAST_SECONDS:
            raise NoGain(
                f"it would save {max(self.saved_seconds, 0.0):.1f} s: a pass through the frozen part takes "
                f"{self.pass_seconds:.2g} s, {'one epoch is' if self.epochs == 1 else f'{self.epochs} epochs are'} left and "
                f"the features take {self.size_bytes / 1e6:,.1f} MB"
            )
