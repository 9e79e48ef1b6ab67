"""The templates of reports: Markdown, and HTML pages that need nothing beside them."""

import jinja2


def templates() -> jinja2.Environment:
    """Return the environment of the templates; what it puts into HTML is escaped, and a name it lacks is an error."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("autodeco.reports"),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
