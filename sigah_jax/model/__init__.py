"""SiGAH itself: networks, sparse coding, losses and the training step. Arrays in, arrays out."""
