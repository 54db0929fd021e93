"""Language-model services."""
