"""What the names of a ranker's tables have in common."""


def table_name(feature: str) -> str:
    """A name that a module can have: a column may well be called ``type`` or ``shop.id``."""
    return f"{feature.replace('.', '_')}_table"
