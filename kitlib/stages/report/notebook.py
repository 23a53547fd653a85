"""An executed notebook as one HTML file that needs neither a server nor a network."""

from __future__ import annotations

from pathlib import Path

from kitlib import files
from kitlib.errors import KitError

# nbconvert's page as in JupyterLab, without the scripts that it would fetch: RequireJS, MathJax, Mermaid and
# the widgets' manager, whose state its last part holds. Formulas stay as they are written, and a widget shows
# the picture that it was saved with.
_TEMPLATE = """
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block footer -%}</html>{%- endblock -%}
"""
_NAME = "self-contained.html.j2"
# What is shown of an output that comes in several forms; nothing that runs in the browser.
_FORMS = [
    "image/svg+xml",
    "image/png",
    "image/jpeg",
    "text/html",
    "text/markdown",
    "text/latex",
    "text/plain",
]


def write_html(executed: Path) -> Path:
    """Write a notebook as HTML beside it, atomically; returns the path of the HTML.

    Raises:
        KitError: it is no notebook, or the HTML cannot be written.
    """
    from jinja2 import DictLoader
    from nbconvert import HTMLExporter
    from nbformat.reader import NotJSONError

    settings = HTMLExporter().default_config
    settings.NbConvertBase.display_data_priority = _FORMS
    loader = DictLoader({_NAME: _TEMPLATE})
    exporter = HTMLExporter(settings, template_file=_NAME, extra_loaders=[loader])
    try:
        html, _ = exporter.from_filename(str(executed))
    except (NotJSONError, OSError) as error:
        raise KitError(f"{executed} is not a notebook that can be read; run its stage again") from error
    return files.write_text(executed.with_suffix(".html"), html)
