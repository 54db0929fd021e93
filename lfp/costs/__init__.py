"""What a grid costs, estimated and measured."""
