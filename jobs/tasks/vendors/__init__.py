"""What libraries need set or mended before they are used: nothing is fetched, nothing is reported, and releases fit together."""
