"""The trained product: an encoder that stands alone."""
