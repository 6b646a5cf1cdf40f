"""What people read: tables of plain text and pages of HTML. It knows nothing of networks."""

from funcnet.rendering import pages
from funcnet.rendering.tables import headed, text_table

__all__ = ["headed", "pages", "text_table"]
