"""Build and install MinkowskiEngine; nothing here needs more than Python and pip."""
