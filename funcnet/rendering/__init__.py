"""Output for people: tables of plain text and pages of HTML. This package knows nothing of networks."""

from funcnet.rendering import pages
from funcnet.rendering.tables import headed, text_table

__all__ = ["headed", "pages", "text_table"]
