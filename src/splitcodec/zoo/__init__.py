"""Bundles that ship with the package: one folder per bundle, named `<name>@<version>`; see docs/bundle-format.md."""
