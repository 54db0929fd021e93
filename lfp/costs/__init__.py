"""The cost of a grid, estimated and measured."""
