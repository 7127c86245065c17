"""What all pages share: templates whose every text from outside is escaped."""

from jinja2 import Environment, PackageLoader, StrictUndefined


def page_templates() -> Environment:
    """The templates of the pages; a name that is not given is an error."""
    return Environment(
        loader=PackageLoader("torchrec_mm.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
