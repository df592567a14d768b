"""The foreign formats, a folder each: an importer, and for weights that become our decoder a `TensorSource`."""
