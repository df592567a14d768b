"""What libraries need set or changed before they are used: nothing is fetched, nothing is reported, and releases fit together."""
