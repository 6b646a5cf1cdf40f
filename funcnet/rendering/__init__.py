"""What people read: tables of plain text and pages of HTML. It knows nothing of networks."""

from funcnet.rendering import pages
from funcnet.rendering.tables import text_table

__all__ = ["pages", "text_table"]
