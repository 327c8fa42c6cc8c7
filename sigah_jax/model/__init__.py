"""SiGAH itself: networks, sparse coding, losses, refinement of codes. Arrays in, arrays out."""
