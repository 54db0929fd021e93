"""Pages of tables for a browser: what is shown first, and how it is sorted and searched."""
