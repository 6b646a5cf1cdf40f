"""Output for people: tables of plain text and pages of HTML. This package knows nothing of networks."""

from funcnet.rendering import pages
from funcnet.rendering.tables import headed, numeral, text_table

__all__ = ["headed", "numeral", "pages", "text_table"]
