"""
The templates: jinja2 with everything escaped, loaded when the first page is asked for.

Words for numbers and times are ``words``'; a template that names what it was not given is a fault of ours, told in the log.
"""

from __future__ import annotations

import functools
from typing import Any

from esgf_gossip.views.node_json import plain_utc
from esgf_gossip.web.dashboard import words


class Templates:
    """Fills templates."""

    @functools.cached_property
    def _environment(self) -> Any:
        # 40 ms at the start of each daemon, for those who look.
        import jinja2  # noqa: PLC0415

        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("esgf_gossip.web.dashboard", "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            finalize=words.shown,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {
            name: getattr(words, name)
            for name in (
                "clock",
                "count",
                "humps",
                "link_target",
                "plural",
                "relative",
                "rfc3339",
                "size",
                "span",
                "uncut",
            )
        } | {"whole": plain_utc}
        return environment

    def render(self, name: str, **values: Any) -> bytes:
        """Return a page in UTF-8."""
        text: str = self._environment.get_template(name).render(**values)
        return text.encode("utf-8", "replace")
