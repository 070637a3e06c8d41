"""Generated from proto/auction/v1 by `make proto`; never edited by hand."""
