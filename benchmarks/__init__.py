"""Our hot paths beside the peers', in one run: `make bench`."""
