"""The message where an optional library is not installed."""

from pipeline.errors import UsageError


def missing(error: ImportError, library: str) -> UsageError:
    """What to do about an import that failed.

    Args:
        library: the name of the distribution.
    """
    return UsageError(f"pictures need {library}, which cannot be loaded ({error}): pip install 'earshot[serve]'")
