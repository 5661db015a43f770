"""Point-cloud and video datasets; importing this package imports none of them."""
