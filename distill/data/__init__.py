"""From published data sets to batches: order, decoding, augmentation and prompts."""
