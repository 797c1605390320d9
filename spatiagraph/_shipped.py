"""Models that come with the package, by name, without anything heavy."""

from pathlib import Path

SHIPPED = Path(__file__).parent / "pretrained"
"""Their folder; each has a ``card.md`` beside its weights."""


def shipped_models() -> list[str]:
    """Names that ``from_pretrained`` and the command line take."""
    return sorted(card.parent.name for card in SHIPPED.glob("*/card.md"))
