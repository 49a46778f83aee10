"""Checks of what builders are called with."""


def check_at_least(least: int, **options: int) -> None:
    """
    Raises:
        ValueError: one of the `options` is less than `least`.
    """
    for name, value in options.items():
        if value < least:
            raise ValueError(f"{name} {value!r}: must be a whole number of at least {least}")


def check_dropout(dropout: float) -> None:
    """
    Raises:
        ValueError: `dropout` is no rate at which something is left.
    """
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout {dropout!r}: must be at least 0 and below 1")
