"""Numbers from interleaved measurements: A B A B …, because the machine is noisy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

Sample = Callable[[], list[float]]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass(frozen=True)
class Pairs:
    """Rounds of two sides, taken in turn."""

    ours: list[list[float]]
    theirs: list[list[float]]

    def ratio(self, share: float = 0.5) -> float:
        """Return the median, over the rounds, of our percentile through theirs."""
        return median(self.ratios(share))

    def ratios(self, share: float = 0.5) -> list[float]:
        """Return our percentile through theirs, round by round."""
        rounds = zip(self.ours, self.theirs, strict=True)
        return [percentile(a, share) / percentile(b, share) for a, b in rounds]

    def spread(self, share: float = 0.5) -> str:
        """Say between what the ratios of the rounds lie."""
        ratios = self.ratios(share)
        return f"rounds {min(ratios):.3g} to {max(ratios):.3g}"

    def values(self, share: float = 0.5) -> tuple[float, float]:
        """Return the median, over the rounds, of each side's percentile."""
        return typical(self.ours, share), typical(self.theirs, share)


def typical(rounds: Sequence[Sequence[float]], share: float = 0.5) -> float:
    """Return the median, over the rounds, of a percentile."""
    return median(percentile(values, share) for values in rounds)


def interleave(rounds: int, ours: Sample, theirs: Sample) -> Pairs:
    """Take both sides in turn."""
    taken = [(ours(), theirs()) for _ in range(rounds)]
    return Pairs([a for a, _ in taken], [b for _, b in taken])
