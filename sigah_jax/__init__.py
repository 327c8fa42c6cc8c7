"""SiGAH in JAX: binary codes for nearest-neighbour search, learned without labels."""
