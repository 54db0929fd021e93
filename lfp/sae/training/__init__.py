"""Training of sparse autoencoders: scale, schedule, gradients, and the loop over batches."""
